#define NPY_NO_DEPRECATED_API NPY_1_22_API_VERSION
#include "module_known.hpp"

#include <nanobind/stl/string.h>
#include <numpy/arrayobject.h>

namespace collx {

namespace {

constexpr std::size_t kMost = 2048;  // calls known at a time
constexpr std::uint64_t kArray = std::uint64_t{1} << 63;
constexpr std::uint64_t kApartInMemory = std::uint64_t{1} << 63;  // no distance between two addresses
static_assert(sizeof(npy_intp) == sizeof(std::intptr_t));

PyArrayObject* array(PyObject* object) { return reinterpret_cast<PyArrayObject*>(object); }

std::byte* data(PyObject* object) { return static_cast<std::byte*>(PyArray_DATA(array(object))); }

// How two arrays share memory: not at all, or how far one begins behind the other.
std::uint64_t relation(PyObject* x, PyObject* out) {
    if (x == Py_None || out == Py_None) return 0;
    const std::byte *input = data(x), *output = data(out);
    const bool shared = input < output + PyArray_NBYTES(array(out)) && output < input + PyArray_NBYTES(array(x));
    return shared ? static_cast<std::uint64_t>(output - input) : kApartInMemory;
}

PyObject* unknown() {
    Py_INCREF(Py_NotImplemented);
    return Py_NotImplemented;
}

PreparedPlan& plan_of(nb::handle prepared) { return nb::cast<PreparedPlan&>(prepared.attr("native")); }

}  // namespace

// -- what a call is known by --------------------------------------------------------------------------

bool Key::add_array(PyObject* object, const nb::object& kind) {
    if (object == Py_None) {
        add(0);
        return true;
    }
    if (!PyArray_CheckExact(object) && reinterpret_cast<PyObject*>(Py_TYPE(object)) != kind.ptr()) return false;
    PyArrayObject* const it = array(object);
    constexpr int kPlain = NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED;
    const int flags = PyArray_FLAGS(it), dimensions = PyArray_NDIM(it);
    if ((flags & kPlain) != kPlain || !PyArray_ISNOTSWAPPED(it)) return false;
    if (dimensions > static_cast<int>(kLength)) return false;
    const std::uint64_t writable = (flags & NPY_ARRAY_WRITEABLE) != 0;
    add(kArray | writable << 62 | static_cast<std::uint64_t>(dimensions) << 32 |
        static_cast<std::uint32_t>(PyArray_TYPE(it)));
    for (int i = 0; i < dimensions; ++i) add(static_cast<std::uint64_t>(PyArray_DIMS(it)[i]));
    return true;
}

bool Key::read(PyObject* const* given, std::size_t count, const nb::object& kind) {
    count_ = 0;
    add(reinterpret_cast<std::uintptr_t>(given[0]));
    for (std::size_t i = 3; i < count; ++i) add(reinterpret_cast<std::uintptr_t>(given[i]));
    if (!add_array(given[1], kind) || !add_array(given[2], kind)) return false;
    add(relation(given[1], given[2]));
    return true;
}

std::size_t Key::Hash::operator()(const Key& key) const {
    std::uint64_t hash = 0;
    for (std::size_t i = 0; i < key.count_; ++i) hash = (hash ^ key.words_[i]) * 0x9e3779b97f4a7c15ull;
    return hash ^ hash >> 32;
}

// -- known calls --------------------------------------------------------------------------------------

Known::Known(nb::object endpoint, nb::object failed, nb::object kind, double timeout)
    : endpoint_object_(std::move(endpoint)), failed_(std::move(failed)), kind_(std::move(kind)),
      endpoint_(nb::cast<PyEndpoint&>(endpoint_object_)), timeout_(timeout) {}

PyObject* Known::recall(PyObject* const* given, std::size_t count) {
    Key key;
    if (!open_ || !key.read(given, count, kind_)) return unknown();
    const auto found = entries_.find(key);
    if (found == entries_.end()) return unknown();
    const Entry& entry = found->second;
    PyObject* const x = given[1];
    nb::object result = nb::none();
    std::byte* output = nullptr;
    switch (entry.result) {
        case Entry::Result::nothing:
            break;
        case Entry::Result::x:
            result = nb::borrow(x);
            output = data(x);
            break;
        case Entry::Result::out:
            result = nb::borrow(given[2]);
            output = data(given[2]);
            break;
        case Entry::Result::fresh: {
            PyArray_Descr* const dtype = PyArray_DESCR(array(x));
            Py_INCREF(dtype);
            PyObject* const made = PyArray_NewFromDescr(&PyArray_Type, dtype, entry.dimensions, entry.shape.data(),
                                                        nullptr, nullptr, 0, nullptr);
            if (made == nullptr) return nullptr;
            result = nb::steal(made);
            output = data(made);
        }
    }
    bool done = false;
    if (!run(entry.prepared, *entry.plan, x == Py_None ? nullptr : data(x), output, done)) return nullptr;
    return done ? result.release().ptr() : unknown();
}

void Known::remember(nb::object prepared, nb::object result, nb::typed<nb::tuple, nb::object, nb::ellipsis> given) {
    std::array<PyObject*, kRest + 3> arguments{};
    const std::size_t count = given.size();
    if (count < 3 || count > arguments.size()) throw nb::value_error("a call has 3 to 6 arguments");
    for (std::size_t i = 0; i < count; ++i) arguments[i] = given[i].ptr();
    Key key;
    if (!open_ || !key.read(arguments.data(), count, kind_)) return;
    Entry entry;
    entry.plan = &plan_of(prepared);
    entry.prepared = std::move(prepared);
    entry.kept[0] = nb::borrow(arguments[0]);
    for (std::size_t i = 3; i < count; ++i) entry.kept[i - 2] = nb::borrow(arguments[i]);
    if (!result.is_none()) {
        PyObject* const made = result.ptr();
        entry.result = made == arguments[2]   ? Entry::Result::out
                       : made == arguments[1] ? Entry::Result::x
                                              : Entry::Result::fresh;
        if (!PyArray_Check(made) || PyArray_NDIM(array(made)) > static_cast<int>(kLength)) return;
        entry.dimensions = PyArray_NDIM(array(made));
        for (int i = 0; i < entry.dimensions; ++i) entry.shape[static_cast<std::size_t>(i)] = PyArray_DIMS(array(made))[i];
    }
    if (entries_.size() >= kMost) forget();
    entries_.insert_or_assign(key, std::move(entry));
}

void Known::close() {
    open_ = false;
    forget();
}

bool Known::run(nb::handle prepared, PreparedPlan& plan, std::byte* input, std::byte* output, bool& done) {
    done = open_ && endpoint_.idle();
    if (!done) return true;
    const nb::object kept = nb::borrow(prepared);  // what is known may be forgotten meanwhile
    try {
        const Outcome outcome = endpoint_.at_once(plan, input, output, ++endpoint_.counted, timeout_);
        if (outcome.status == Status::ok) return true;
        raise(prepared, outcome);
        PyErr_SetString(PyExc_SystemError, "a call failed, and nothing was raised");
    } catch (nb::python_error& error) {
        error.restore();
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
    }
    return false;
}

void Known::raise(nb::handle prepared, Outcome outcome) {
    nb::object error = nb::none();
    if (outcome.status == Status::interrupted) error = nb::borrow(nb::python_error().value());
    failed_(prepared, nb::make_tuple(static_cast<int>(outcome.status), outcome.peer, outcome.bytes, outcome.wanted), error, timeout_);
}

int Known::traverse(visitproc visit, void* arg) {
    Py_VISIT(endpoint_object_.ptr());
    Py_VISIT(failed_.ptr());
    for (const auto& [key, entry] : entries_) {
        Py_VISIT(entry.prepared.ptr());
        for (const nb::object& object : entry.kept) Py_VISIT(object.ptr());
    }
    return 0;
}

void Known::clear() {
    close();
    failed_.reset();
}

// -- handles ------------------------------------------------------------------------------------------

Bound::Bound(nb::object known, nb::object prepared, std::uintptr_t input, std::uintptr_t output)
    : known_(std::move(known)), prepared_(std::move(prepared)), knows_(nb::cast<Known&>(known_)),
      plan_(plan_of(prepared_)), input_(at(input)), output_(at(output)) {}

PyObject* Bound::run() {
    bool done = false;
    if (!knows_.run(prepared_, plan_, input_, output_, done)) return nullptr;
    return PyBool_FromLong(done);
}

// -- for Python ---------------------------------------------------------------------------------------

namespace {

// Methods that Python calls without nanobind's dispatch, which takes longer than a small collective.
template <typename Function>
PyCFunction method(Function* function) {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

PyObject* recall(PyObject* self, PyObject* const* given, Py_ssize_t count) {
    if (count < 5 || count > static_cast<Py_ssize_t>(kRest + 5)) {
        PyErr_SetString(PyExc_TypeError, "recall takes async_op, timeout, a collective's name, x, out and the rest");
        return nullptr;
    }
    if (given[0] != Py_False || given[1] != Py_None) return unknown();
    return nb::inst_ptr<Known>(self)->recall(given + 2, static_cast<std::size_t>(count - 2));
}

PyObject* run(PyObject* self, PyObject* const*, Py_ssize_t) { return nb::inst_ptr<Bound>(self)->run(); }

int traverse(PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    return nb::inst_ready(self) ? nb::inst_ptr<Known>(self)->traverse(visit, arg) : 0;
}

int clear(PyObject* self) {
    if (nb::inst_ready(self)) nb::inst_ptr<Known>(self)->clear();
    return 0;
}

PyMethodDef known_methods[] = {
    {"recall", method(&recall), METH_FASTCALL,
     "recall($self, async_op, timeout, collective, x, out, /, *rest)\n--\n\n"},
    {nullptr, nullptr, 0, nullptr}};
PyMethodDef bound_methods[] = {{"run", method(&run), METH_FASTCALL, "run($self, /)\n--\n\n"},
                               {nullptr, nullptr, 0, nullptr}};
PyType_Slot known_slots[] = {{Py_tp_methods, known_methods},
                             {Py_tp_traverse, reinterpret_cast<void*>(&traverse)},
                             {Py_tp_clear, reinterpret_cast<void*>(&clear)},
                             {0, nullptr}};
PyType_Slot bound_slots[] = {{Py_tp_methods, bound_methods}, {0, nullptr}};

}  // namespace

void bind_known(nb::module_& module) {
    using namespace nanobind::literals;
    if (_import_array() < 0) throw nb::python_error();
    nb::class_<Known>(module, "Known", nb::type_slots(known_slots))
        .def(nb::init<nb::object, nb::object, nb::object, double>(), "endpoint"_a, "failed"_a, "kind"_a, "timeout"_a)
        .def("remember", &Known::remember, "prepared"_a, "result"_a.none(), "given"_a)
        .def("bind",
             [](nb::object known, nb::object prepared, std::uintptr_t input, std::uintptr_t output) -> nb::object {
                 return nb::cast(Bound(std::move(known), std::move(prepared), input, output)).attr("run");
             },
             nb::sig("def bind(self, prepared: object, input: int, output: int) -> "
                     "collections.abc.Callable[[], bool]"),
             "prepared"_a, "input"_a, "output"_a)
        .def("forget", &Known::forget)
        .def("close", &Known::close)
        .def_prop_rw("timeout", &Known::timeout, &Known::set_timeout);
    nb::class_<Bound>(module, "Bound", nb::type_slots(bound_slots));
}

}  // namespace collx
