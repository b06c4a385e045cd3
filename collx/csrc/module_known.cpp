#define NPY_NO_DEPRECATED_API NPY_1_22_API_VERSION
#include "module_known.hpp"

#include <nanobind/stl/string.h>
#include <numpy/arrayobject.h>

#include <algorithm>

#include "module_garbage.hpp"
#include "module_tensor.hpp"

namespace collx {

namespace {

constexpr std::size_t kMost = 2048;  // calls known at a time
constexpr double kForever = 1e8;         // seconds, as in checks.py
constexpr std::uint64_t kArray = std::uint64_t{1} << 63;
constexpr std::uint64_t kTensor = std::uint64_t{1} << 61;  // beside kArray and what says that it is writable
constexpr std::uint64_t kNumbers = std::uint64_t{1} << 63;  // no address
constexpr std::uint64_t kApartInMemory = std::uint64_t{1} << 63;  // no distance between two addresses
static_assert(sizeof(npy_intp) == sizeof(std::intptr_t));

PyArrayObject* array(PyObject* object) { return reinterpret_cast<PyArrayObject*>(object); }

std::byte* data(PyObject* object) { return static_cast<std::byte*>(PyArray_DATA(array(object))); }

// How two arrays share memory: not at all, or how far one begins behind the other.
std::uint64_t relation(const Memory& x, const Memory& out) {
    if (x.data == nullptr || out.data == nullptr) return 0;
    const bool shared = x.data < out.data + out.bytes && out.data < x.data + x.bytes;
    return shared ? static_cast<std::uint64_t>(out.data - x.data) : kApartInMemory;
}

nb::object unknown() { return nb::borrow(Py_NotImplemented); }

void set(PyObject* target, const nb::object& value) {
    if (PyArray_CopyInto(array(target), array(value.ptr())) < 0) throw nb::python_error();
}

}  // namespace

// -- what a call is known by --------------------------------------------------------------------------

bool Key::add_array(PyObject* object, const nb::object& kind, Memory& memory) {
    memory = {};
    if (object == Py_None) {
        add(0);
        return true;
    }
    if (!PyArray_CheckExact(object) && reinterpret_cast<PyObject*>(Py_TYPE(object)) != kind.ptr())
        return add_tensor(object, memory);
    PyArrayObject* const it = array(object);
    constexpr int kPlain = NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED;
    const int flags = PyArray_FLAGS(it), dimensions = PyArray_NDIM(it);
    if ((flags & kPlain) != kPlain || !PyArray_ISNOTSWAPPED(it)) return false;
    if (dimensions > static_cast<int>(kLength)) return false;
    const std::uint64_t writable = (flags & NPY_ARRAY_WRITEABLE) != 0;
    add(kArray | writable << 62 | static_cast<std::uint64_t>(dimensions) << 32 |
        static_cast<std::uint32_t>(PyArray_TYPE(it)));
    for (int i = 0; i < dimensions; ++i) add(static_cast<std::uint64_t>(PyArray_DIMS(it)[i]));
    memory = {data(object), static_cast<std::uint64_t>(PyArray_NBYTES(it))};
    return true;
}

bool Key::add_tensor(PyObject* object, Memory& memory) {
    Tensor tensor;
    if (!read_tensor(object, tensor) || tensor.dimensions > static_cast<int>(kLength)) return false;
    add(kArray | kTensor | static_cast<std::uint64_t>(tensor.dimensions) << 32 | tensor.dtype);
    for (int i = 0; i < tensor.dimensions; ++i) add(static_cast<std::uint64_t>(tensor.shape[i]));
    memory = {tensor.data, tensor.bytes};
    return tensor_ = true;
}

// Counts by the numbers they hold now, anything else by its identity.
bool Key::add_rest(PyObject* object) {
    if (!PyTuple_CheckExact(object) && !PyList_CheckExact(object)) {
        add(reinterpret_cast<std::uintptr_t>(object));
        return true;
    }
    const auto length = static_cast<std::size_t>(PySequence_Fast_GET_SIZE(object));
    if (length > kCounts) return false;
    add(kNumbers | length);
    for (std::size_t i = 0; i < length; ++i) {
        PyObject* const number = PySequence_Fast_GET_ITEM(object, static_cast<Py_ssize_t>(i));
        if (!PyLong_CheckExact(number)) return false;
        int overflow = 0;
        add(static_cast<std::uint64_t>(PyLong_AsLongLongAndOverflow(number, &overflow)));
        if (overflow != 0) return false;
    }
    return true;
}

bool Key::read(PyObject* const* given, std::size_t count, const nb::object& kind) {
    count_ = 0;
    tensor_ = false;
    add(reinterpret_cast<std::uintptr_t>(given[0]));
    for (std::size_t i = 3; i < count; ++i)
        if (!add_rest(given[i])) return false;
    if (!add_array(given[1], kind, x_) || !add_array(given[2], kind, out_)) return false;
    add(relation(x_, out_));
    return true;
}

std::size_t Key::Hash::operator()(const Key& key) const {
    std::uint64_t hash = 0;
    for (std::size_t i = 0; i < key.count_; ++i) hash = (hash ^ key.words_[i]) * 0x9e3779b97f4a7c15ull;
    return hash ^ hash >> 32;
}

// -- known calls --------------------------------------------------------------------------------------

Known::Known(nb::object engine, nb::object failed, nb::object begin, nb::object kind, double timeout)
    : engine_(std::move(engine)), failed_(std::move(failed)), begin_(std::move(begin)), kind_(std::move(kind)),
      endpoint_(nb::isinstance<PyEndpoint>(engine_) ? &nb::cast<PyEndpoint&>(engine_) : nullptr),
      notes_(nb::isinstance<Notes>(engine_) ? &nb::cast<Notes&>(engine_) : nullptr), timeout_(timeout) {}

PreparedPlan* Known::plan_of(nb::handle prepared) const {
    return endpoint_ == nullptr ? nullptr : &nb::cast<PreparedPlan&>(prepared.attr("native"));
}

nb::object Known::recall(bool async_op, double timeout, PyObject* const* given, std::size_t count) {
    Key key;
    if (!open_ || paused_ || !(async_op || idle()) || !key.read(given, count, kind_)) return unknown();
    const auto found = entries_.find(key);
    if (found == entries_.end()) return unknown();
    const Entry& entry = found->second;
    const nb::object prepared = entry.prepared;  // what is known may be forgotten meanwhile
    PreparedPlan* const plan = entry.plan;
    nb::object x = nb::borrow(given[1]), result = nb::none();
    if (entry.copied) {
        x = nb::steal(PyArray_NewCopy(array(given[1]), NPY_CORDER));
        if (!x) throw nb::python_error();
    }
    std::byte* const input = entry.copied ? data(x.ptr()) : key.x().data;
    std::byte* output = nullptr;
    switch (entry.result) {
        case Entry::Result::nothing:
            break;
        case Entry::Result::x:
            result = nb::borrow(given[1]);
            output = input;
            break;
        case Entry::Result::out:
            result = nb::borrow(given[2]);
            output = key.out().data;
            break;
        case Entry::Result::fresh: {
            PyArray_Descr* const dtype = PyArray_DESCR(array(given[1]));
            Py_INCREF(dtype);
            result = nb::steal(PyArray_NewFromDescr(&PyArray_Type, dtype, entry.dimensions, entry.shape.data(), nullptr,
                                                    nullptr, 0, nullptr));
            if (!result) throw nb::python_error();
            output = data(result.ptr());
        }
    }
    if (entry.fill) set(result.ptr(), entry.fill);
    if (async_op)
        return begin_(nb::handle(given[0]), prepared, reinterpret_cast<std::uintptr_t>(input),
                      reinterpret_cast<std::uintptr_t>(output), timeout, result,
                      nb::make_tuple(prepared, x, result, nb::handle(given[2])));
    return run(prepared, plan, input, output, timeout, x, result) ? result : unknown();
}

void Known::remember(nb::object prepared, nb::object result, nb::typed<nb::tuple, nb::object, nb::ellipsis> given,
                     bool copied, nb::object fill) {
    std::array<PyObject*, kRest + 3> arguments{};
    const std::size_t count = given.size();
    if (count < 3 || count > arguments.size()) throw nb::value_error("a call has 3 to 6 arguments");
    for (std::size_t i = 0; i < count; ++i) arguments[i] = given[i].ptr();
    Key key;
    find_torch();
    if (!open_ || !key.read(arguments.data(), count, kind_)) return;
    // Copies and new results are made as NumPy's arrays are, and so is what is filled.
    const bool given_result = result.ptr() == arguments[1] || result.ptr() == arguments[2] || result.is_none();
    if (key.has_tensor() && (copied || !given_result || !fill.is_none())) return;
    Entry entry;
    entry.plan = plan_of(prepared);
    if (notes_ != nullptr) static_cast<void>(nb::cast<Extent&>(prepared));  // it must be one
    entry.prepared = std::move(prepared);
    entry.copied = copied;
    if (!fill.is_none()) entry.fill = std::move(fill);
    entry.kept[0] = nb::borrow(arguments[0]);
    for (std::size_t i = 3; i < count; ++i) entry.kept[i - 2] = nb::borrow(arguments[i]);
    if (!result.is_none()) {
        PyObject* const made = result.ptr();
        entry.result = made == arguments[2]   ? Entry::Result::out
                       : made == arguments[1] ? Entry::Result::x
                                              : Entry::Result::fresh;
        if (entry.result == Entry::Result::fresh) {
            if (!PyArray_Check(made) || PyArray_NDIM(array(made)) > static_cast<int>(kLength)) return;
            entry.dimensions = PyArray_NDIM(array(made));
            std::copy_n(PyArray_DIMS(array(made)), entry.dimensions, entry.shape.begin());
        }
    }
    if (entries_.size() >= kMost) forget();
    entries_.insert_or_assign(key, std::move(entry));
}

void Known::close() {
    open_ = false;
    forget();
}

bool Known::run(nb::handle prepared, PreparedPlan* plan, std::byte* input, std::byte* output, double timeout,
                nb::handle read, nb::handle written) {
    if (!open_ || paused_ || !idle()) return false;
    if (notes_ != nullptr) {
        if (timeout != timeout_) notes_->within(timeout);
        notes_->note(nb::borrow(prepared), reinterpret_cast<std::uintptr_t>(input),
                     reinterpret_cast<std::uintptr_t>(output), nb::borrow(read), nb::borrow(written));
        return true;
    }
    if (endpoint_ == nullptr)
        return nb::cast<bool>(engine_(prepared, reinterpret_cast<std::uintptr_t>(input),
                                      reinterpret_cast<std::uintptr_t>(output), timeout, read, written));
    const Outcome outcome = endpoint_->at_once(*plan, input, output, ++endpoint_->counted, timeout);
    if (outcome.status != Status::ok) raise(prepared, outcome, timeout);
    return true;
}

void Known::raise(nb::handle prepared, Outcome outcome, double timeout) {
    nb::object error = nb::none();
    if (outcome.status == Status::interrupted) error = nb::borrow(nb::python_error().value());
    failed_(prepared, nb::make_tuple(static_cast<int>(outcome.status), outcome.peer, outcome.bytes, outcome.wanted),
            error, timeout);
    throw std::logic_error("a call failed, and nothing was raised");
}

int Known::traverse(visitproc visit, void* arg) {
    Py_VISIT(engine_.ptr());
    Py_VISIT(failed_.ptr());
    Py_VISIT(begin_.ptr());
    for (const auto& [key, entry] : entries_) {
        Py_VISIT(entry.prepared.ptr());
        for (const nb::object& object : entry.kept) Py_VISIT(object.ptr());
    }
    return 0;
}

void Known::clear() {
    close();
    failed_.reset();
    begin_.reset();
}

// -- handles ------------------------------------------------------------------------------------------

Bound::Bound(nb::object known, nb::object prepared, std::uintptr_t input, std::uintptr_t output, nb::object fill,
             nb::object result, nb::object keep)
    : known_(std::move(known)), prepared_(std::move(prepared)), result_(std::move(result)), keep_(std::move(keep)),
      knows_(&nb::cast<Known&>(known_)),
      plan_(knows_->plan_of(prepared_)), input_(at(input)), output_(at(output)) {
    if (fill.is_none()) return;
    filled_ = fill[0];
    fill_ = fill[1];
}

nb::object Bound::recall(const double* timeout) {
    if (knows_ == nullptr) return unknown();
    if (fill_) set(filled_.ptr(), fill_);
    const double seconds = timeout != nullptr ? *timeout : knows_->timeout();
    return knows_->run(prepared_, plan_, input_, output_, seconds, keep_, result_) ? result_ : unknown();
}

int Bound::traverse(visitproc visit, void* arg) {
    for (const nb::object* object : {&known_, &prepared_, &filled_, &fill_, &result_, &keep_}) Py_VISIT(object->ptr());
    return 0;
}

void Bound::clear() {
    knows_ = nullptr;
    for (nb::object* object : {&known_, &prepared_, &filled_, &fill_, &result_, &keep_}) object->reset();
}

// -- for Python ---------------------------------------------------------------------------------------

namespace {

// Methods that Python calls without nanobind's dispatch, which takes longer than a small collective.
template <typename Function>
PyCFunction method(Function* function) {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

// What `act` returns; null, with the error set, where it throws.
template <typename Act>
PyObject* returned(Act act) noexcept {
    try {
        return act().release().ptr();
    } catch (nb::python_error& error) {
        error.restore();
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
    } catch (const std::exception& error) {
        PyErr_SetString(PyExc_SystemError, error.what());
    }
    return nullptr;
}

// Whether checks.seconds would take it; what it says otherwise is for Python to say.
bool read_seconds(PyObject* given, double& seconds) {
    if (given == Py_None) return true;
    if (PyFloat_CheckExact(given)) {
        seconds = PyFloat_AS_DOUBLE(given);
    } else if (PyLong_CheckExact(given)) {
        int overflow = 0;
        seconds = static_cast<double>(PyLong_AsLongLongAndOverflow(given, &overflow));
        if (overflow != 0) return false;
    } else {
        return false;
    }
    if (!(seconds > 0)) return false;
    seconds = std::min(seconds, kForever);
    return true;
}

PyObject* recall(PyObject* self, PyObject* const* given, Py_ssize_t count) {
    if (count < 5 || count > static_cast<Py_ssize_t>(kRest + 5)) {
        PyErr_SetString(PyExc_TypeError, "recall takes async_op, timeout, a collective's name, x, out and the rest");
        return nullptr;
    }
    return returned([&] {
        Known& known = *nb::inst_ptr<Known>(self);
        double timeout = known.timeout();
        if ((given[0] != Py_False && given[0] != Py_True) || !read_seconds(given[1], timeout)) return unknown();
        return known.recall(given[0] == Py_True, timeout, given + 2, static_cast<std::size_t>(count - 2));
    });
}

PyObject* recall_bound(PyObject* self, PyObject* const* given, Py_ssize_t count) {
    return returned([&] {
        double timeout = 0;
        if (count < 2 || given[0] != Py_False || !read_seconds(given[1], timeout)) return unknown();
        return nb::inst_ptr<Bound>(self)->recall(given[1] == Py_None ? nullptr : &timeout);
    });
}

PyMethodDef known_methods[] = {
    {"recall", method(&recall), METH_FASTCALL,
     "recall($self, async_op, timeout, collective, x, out, /, *rest)\n--\n\n"},
    {nullptr, nullptr, 0, nullptr}};
PyMethodDef bound_methods[] = {{"recall", method(&recall_bound), METH_FASTCALL,
                               "recall($self, async_op, timeout, /, *rest)\n--\n\n"},
                               {nullptr, nullptr, 0, nullptr}};

}  // namespace

void bind_known(nb::module_& module) {
    using namespace nanobind::literals;
    if (_import_array() < 0) throw nb::python_error();
    static Collectable<Known> knowing(known_methods);
    static Collectable<Bound> bounded(bound_methods);
    nb::class_<Known>(module, "Known", nb::type_slots(knowing.slots))
        .def(nb::init<nb::object, nb::object, nb::object, nb::object, double>(), "engine"_a, "failed"_a.none(), "begin"_a,
             "kind"_a, "timeout"_a)
        .def("remember", &Known::remember, "prepared"_a, "result"_a.none(), "given"_a, "copied"_a, "fill"_a.none())
        .def("bind",
             [](nb::object known, nb::object prepared, std::uintptr_t input, std::uintptr_t output,
                nb::object fill, nb::object result, nb::object keep) -> nb::object {
                 return nb::cast(Bound(std::move(known), std::move(prepared), input, output, std::move(fill),
                                       std::move(result), std::move(keep)))
                     .attr("recall");
             },
             nb::sig("def bind(self, prepared: object, input: int, output: int, fill: object | None, result: object, "
                     "keep: object) -> collections.abc.Callable[..., object]"),
             "prepared"_a, "input"_a, "output"_a, "fill"_a.none(), "result"_a.none(), "keep"_a)
        .def("forget", &Known::forget)
        .def("pause", &Known::pause, "paused"_a)
        .def("close", &Known::close)
        .def_prop_rw("timeout", &Known::timeout, &Known::set_timeout);
    nb::class_<Bound>(module, "Bound", nb::type_slots(bounded.slots));
}

}  // namespace collx
