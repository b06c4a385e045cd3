// The connections to processes on other hosts, as Python makes and hands them over.
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "control.hpp"
#include "module_control.hpp"

using namespace nanobind::literals;

namespace collx {

namespace nb = nanobind;

// Without the interpreter's lock throughout: the control thread's lock must not wait for that.
void bind_control(nb::module_& module) {
    using Released = nb::call_guard<nb::gil_scoped_release>;
    nb::class_<Control>(module, "Control")
        .def(nb::init<std::uint32_t, std::uint32_t>(), "rank"_a, "size"_a)
        .def("add", &Control::add, "peer"_a, "fd"_a, Released())
        .def("lost", &Control::lost, "peer"_a, Released())
        .def("fileno", &Control::fileno)
        .def("wants", &Control::wants, Released())
        .def("attach", &Control::attach, "communicator"_a, "peer"_a, "fd"_a, Released())
        .def("fail", &Control::fail, "communicator"_a, "peer"_a, "why"_a, Released())
        .def("holds", &Control::holds, "communicator"_a, Released())
        .def("close", &Control::close, Released());
}

}  // namespace collx
