#include "module_tensor.hpp"

#include <nanobind/ndarray.h>

namespace nb = nanobind;

namespace collx {

namespace {

using Description = nb::dlpack::dltensor;

// DLPackExchangeAPI of dlpack.h, version 1.
struct Exchange {
    std::uint32_t major, minor;
    const Exchange* previous;
    void *allocate, *lend, *take;
    int (*describe)(void* object, Description* description);
    void* stream;
};

// What is needed of torch, for good.
struct Torch {
    PyTypeObject *tensor, *parameter;
    PyObject* is_neg;
    int (*describe)(void* object, Description* description);
};

Torch torch{};

PyTypeObject* type_of(const nb::object& module, const char* name) {
    return reinterpret_cast<PyTypeObject*>(nb::object(module.attr(name)).release().ptr());
}

}  // namespace

void find_torch() {
    if (torch.describe != nullptr) return;
    PyObject* const modules = PyImport_GetModuleDict();
    PyObject *const module = PyDict_GetItemString(modules, "torch"), *const nn = PyDict_GetItemString(modules, "torch.nn");
    if (module == nullptr || nn == nullptr) return;
    const nb::object tensor = nb::getattr(nb::borrow(module), "Tensor", nb::none());
    const nb::object offered = nb::getattr(tensor, "__dlpack_c_exchange_api__", nb::none());
    void* const found = PyCapsule_CheckExact(offered.ptr()) != 0
                            ? PyCapsule_GetPointer(offered.ptr(), PyCapsule_GetName(offered.ptr()))
                            : nullptr;
    if (found == nullptr || static_cast<const Exchange*>(found)->major != 1) return;
    torch.tensor = type_of(nb::borrow(module), "Tensor");
    torch.parameter = type_of(nb::borrow(nn), "Parameter");
    torch.is_neg = nb::object(tensor.attr("is_neg")).release().ptr();
    torch.describe = static_cast<const Exchange*>(found)->describe;
}

bool read_tensor(PyObject* object, Tensor& tensor) {
    PyTypeObject* const type = Py_TYPE(object);
    if (torch.describe == nullptr || (type != torch.tensor && type != torch.parameter)) return false;
    Description description;
    if (torch.describe(object, &description) != 0) {  // why is for the long way to say
        PyErr_Clear();
        return false;
    }
    const auto& dtype = description.dtype;
    if (description.device.device_type != nb::device::cpu::value || dtype.lanes != 1 || dtype.bits % 8 != 0) return false;
    std::uint64_t elements = 1;
    for (int i = description.ndim - 1; i >= 0; --i) {
        const std::int64_t length = description.shape[i];
        if (description.strides != nullptr && length != 1 && description.strides[i] != static_cast<std::int64_t>(elements))
            return false;
        elements *= static_cast<std::uint64_t>(length);
    }
    // What is to be read as conjugated, or negated, lies in memory as it is not.
    if (dtype.code == static_cast<std::uint8_t>(nb::dlpack::dtype_code::Complex)) return false;
    const nb::object negated = nb::steal(PyObject_CallOneArg(torch.is_neg, object));
    if (!negated) throw nb::python_error();
    if (negated.ptr() != Py_False) return false;
    const std::uint64_t itemsize = dtype.bits / 8;
    const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(description.data) + description.byte_offset;
    if (address % itemsize != 0) return false;
    tensor = {reinterpret_cast<std::byte*>(address), elements * itemsize,
              std::uint32_t{dtype.code} << 8 | dtype.bits, description.ndim, description.shape};
    return true;
}

}  // namespace collx
