// A method whose calls are first put to `self._recall(async_op, timeout, name, x, out, *rest)`. What that does not know,
// for which it returns NotImplemented, goes to the function in Python. To run a function in Python takes as long as
// a small collective does; this only puts the arguments in order.
#include "module_quick.hpp"

#include <nanobind/stl/string_view.h>
#include <structmember.h>

#include <algorithm>
#include <array>
#include <cstddef>

namespace nb = nanobind;

namespace collx {

namespace {

constexpr Py_ssize_t kMost = 10;  // parameters of such a method
constexpr Py_ssize_t kFixed = 6;  // a free place, async_op, timeout, the name, x and out

struct Quick {
    PyObject_HEAD
    vectorcallfunc call;
    PyObject *function, *name, *attributes;
    Py_ssize_t count, positional, length;  // of the parameters; of what _recall is given, with the free place
    PyObject *parameters[kMost], *defaults[kMost];  // a default is null where there is none
    Py_ssize_t places[kMost];  // in what _recall is given
};

Quick* quick(PyObject* object) { return reinterpret_cast<Quick*>(object); }

PyObject* interned(const char* text) {
    PyObject* const made = PyUnicode_InternFromString(text);
    if (made == nullptr) throw nb::python_error();
    return made;
}

PyObject* recall_name() {
    static PyObject* const name = interned("_recall");
    return name;
}

// Puts a call's arguments where _recall takes them; false where they are not those of the function.
bool arrange(const Quick& self, PyObject** given, PyObject* const* args, Py_ssize_t positional, PyObject* keywords) {
    if (positional > self.positional) return false;
    given[1] = Py_False;
    given[2] = given[4] = given[5] = Py_None;
    given[3] = self.name;
    std::array<PyObject*, kMost> values;
    std::copy_n(args, positional, values.begin());
    std::copy(self.defaults + positional, self.defaults + self.count, values.begin() + positional);
    const Py_ssize_t named = keywords == nullptr ? 0 : PyTuple_GET_SIZE(keywords);
    for (Py_ssize_t i = 0; i < named; ++i) {
        const auto* const end = self.parameters + self.count;
        const auto* const found = std::find(self.parameters + positional, end, PyTuple_GET_ITEM(keywords, i));
        if (found == end) return false;
        values[static_cast<std::size_t>(found - self.parameters)] = args[positional + i];
    }
    for (Py_ssize_t i = 0; i < self.count; ++i) {
        if (values[static_cast<std::size_t>(i)] == nullptr) return false;
        given[self.places[i]] = values[static_cast<std::size_t>(i)];
    }
    return true;
}

PyObject* call(PyObject* object, PyObject* const* args, std::size_t flags, PyObject* keywords) {
    const Quick& self = *quick(object);
    const Py_ssize_t count = PyVectorcall_NARGS(flags);
    std::array<PyObject*, kFixed + kMost> given;
    if (count > 0 && arrange(self, given.data(), args + 1, count - 1, keywords)) {
        PyObject* const recall = PyObject_GetAttr(args[0], recall_name());
        if (recall == nullptr) return nullptr;
        const auto length = static_cast<std::size_t>(self.length - 1) | PY_VECTORCALL_ARGUMENTS_OFFSET;
        PyObject* const result = PyObject_Vectorcall(recall, given.data() + 1, length, nullptr);
        Py_DECREF(recall);
        if (result != Py_NotImplemented) return result;
        Py_DECREF(result);
    }
    return PyObject_Vectorcall(self.function, args, flags, keywords);
}

PyObject* get(PyObject* self, PyObject* instance, PyObject*) {
    if (instance == nullptr || instance == Py_None) return Py_NewRef(self);
    return PyMethod_New(self, instance);
}

int traverse_quick(PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(quick(self)->function);
    Py_VISIT(quick(self)->attributes);
    for (PyObject* value : quick(self)->defaults) Py_VISIT(value);
    return 0;
}

int clear_quick(PyObject* self) {
    Py_CLEAR(quick(self)->function);
    Py_CLEAR(quick(self)->name);
    Py_CLEAR(quick(self)->attributes);
    for (PyObject*& parameter : quick(self)->parameters) Py_CLEAR(parameter);
    for (PyObject*& value : quick(self)->defaults) Py_CLEAR(value);
    return 0;
}

void free_quick(PyObject* self) {
    PyTypeObject* const type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    clear_quick(self);
    type->tp_free(self);
    Py_DECREF(type);
}

PyMemberDef members[] = {{"__vectorcalloffset__", T_PYSSIZET, offsetof(Quick, call), READONLY, nullptr},
                         {"__dictoffset__", T_PYSSIZET, offsetof(Quick, attributes), READONLY, nullptr},
                         {nullptr, 0, 0, 0, nullptr}};
PyGetSetDef properties[] = {{"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, nullptr, nullptr},
                            {nullptr, nullptr, nullptr, nullptr, nullptr}};

template <typename Function>
void* slot(Function* function) {
    return reinterpret_cast<void*>(function);
}

PyTypeObject* type() {
    static PyType_Slot slots[] = {{Py_tp_call, slot(&PyVectorcall_Call)},
                                  {Py_tp_descr_get, slot(&get)},
                                  {Py_tp_traverse, slot(&traverse_quick)},
                                  {Py_tp_clear, slot(&clear_quick)},
                                  {Py_tp_dealloc, slot(&free_quick)},
                                  {Py_tp_members, members},
                                  {Py_tp_getset, properties},
                                  {0, nullptr}};
    constexpr unsigned flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
                               Py_TPFLAGS_METHOD_DESCRIPTOR | Py_TPFLAGS_DISALLOW_INSTANTIATION;
    static PyType_Spec spec{"collx._core.Quick", sizeof(Quick), 0, flags, slots};
    static PyObject* const made = PyType_FromSpec(&spec);
    if (made == nullptr) throw nb::python_error();
    return reinterpret_cast<PyTypeObject*>(made);
}

// Where _recall takes a parameter; 0 where that is among the rest.
Py_ssize_t place(std::string_view parameter) {
    if (parameter == "async_op") return 1;
    if (parameter == "timeout") return 2;
    if (parameter == "x") return 4;
    return parameter == "out" ? 5 : 0;
}

// `parameters`: (name, default or ...) of each but self, those that have a position first.
nb::object make(nb::object function, nb::str name, nb::typed<nb::tuple, nb::object, nb::ellipsis> parameters,
                std::size_t positional) {
    if (parameters.size() > kMost || positional > parameters.size()) throw nb::value_error("too many parameters");
    const nb::object made = nb::steal(PyType_GenericAlloc(type(), 0));
    if (!made) throw nb::python_error();
    Quick& self = *quick(made.ptr());
    self.call = &call;
    self.function = function.release().ptr();
    self.name = name.release().ptr();
    PyUnicode_InternInPlace(&self.name);
    self.count = static_cast<Py_ssize_t>(parameters.size());
    self.positional = static_cast<Py_ssize_t>(positional);
    self.length = kFixed;
    for (Py_ssize_t i = 0; i < self.count; ++i) {
        const auto parameter = nb::cast<nb::tuple>(parameters[static_cast<std::size_t>(i)]);
        const auto text = nb::cast<std::string_view>(parameter[0]);
        self.parameters[i] = nb::object(parameter[0]).release().ptr();
        PyUnicode_InternInPlace(&self.parameters[i]);
        if (!parameter[1].is(nb::ellipsis())) self.defaults[i] = nb::object(parameter[1]).release().ptr();
        self.places[i] = place(text);
        if (self.places[i] == 0) self.places[i] = self.length++;
    }
    return made;
}

}  // namespace

void bind_quick(nb::module_& module) {
    using namespace nanobind::literals;
    module.def("quick", &make, "function"_a, "name"_a, "parameters"_a, "positional"_a);
}

}  // namespace collx
