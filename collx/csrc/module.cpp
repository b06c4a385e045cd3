// The Python face of the engine: collx._core. Everything here is called through collx/native.py.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include "module_control.hpp"
#include "module_endpoint.hpp"
#include "module_garbage.hpp"
#include "module_known.hpp"
#include "module_notes.hpp"
#include "module_quick.hpp"

using namespace nanobind::literals;

namespace collx {
namespace {

void bind_endpoint(nb::module_& module) {
    nb::class_<PyEndpoint>(module, "Endpoint")
        .def(nb::init<std::shared_ptr<Region>, const std::vector<int>&, bool, std::vector<int>, nb::object,
                      std::shared_ptr<Control>, std::uint32_t, std::uint32_t, std::vector<std::uint32_t>>(),
             "region"_a, "fds"_a, "oversubscribed"_a, "pidfds"_a, "keep"_a.none(), "control"_a.none() = nb::none(),
             "communicator"_a = 0, "epoch"_a = 0, "members"_a = std::vector<std::uint32_t>())
        .def("run", &PyEndpoint::run, "plan"_a, "input"_a, "output"_a, "sequence"_a, "timeout"_a)
        .def("start", &PyEndpoint::start, "plan"_a, "input"_a, "output"_a, "sequence"_a, "timeout"_a)
        .def("send", &PyEndpoint::send, "peer"_a, "tag"_a, "data"_a, "bytes"_a, "timeout"_a,
             "synchronous"_a = false)
        .def("recv", &PyEndpoint::recv, "source"_a, "tag"_a, "data"_a, "bytes"_a, "timeout"_a,
             "exactly"_a = true)
        .def("start_send", &PyEndpoint::start_send, "peer"_a, "tag"_a, "data"_a, "bytes"_a, "timeout"_a,
             "synchronous"_a = false)
        .def("start_recv", &PyEndpoint::start_recv, "source"_a, "tag"_a, "data"_a, "bytes"_a, "timeout"_a,
             "exactly"_a = true)
        .def("probe", &PyEndpoint::probe, "source"_a, "tag"_a, "waits"_a, "timeout"_a)
        .def("recall", &PyEndpoint::recall, "task"_a)
        .def("wait", &PyEndpoint::wait, "task"_a, "timeout"_a)
        .def("explain", &PyEndpoint::explain, "peer"_a, "bytes"_a, "wanted"_a)
        .def("late", &PyEndpoint::late, "waited_for"_a)
        .def("ask", &PyEndpoint::ask)
        .def("name", &PyEndpoint::name, "label"_a, "members"_a)
        .def("calls", &PyEndpoint::calls, "peer"_a, "most"_a)
        .def("propose", &PyEndpoint::propose, "why"_a, "text"_a)
        .def("propose_failed", &PyEndpoint::propose_failed, "left"_a)
        .def("verdict", &PyEndpoint::verdict)
        .def("leaving", &PyEndpoint::leaving)
        .def("members", &PyEndpoint::members, "attempt"_a, "timeout"_a)
        .def("outcome", &PyEndpoint::outcome, "attempt"_a)
        .def("unite", &PyEndpoint::unite, "attempt"_a, "timeout"_a)
        .def("give_up", &PyEndpoint::give_up, "attempt"_a, "text"_a)
        .def("regret", &PyEndpoint::regret, "peer"_a)
        .def("missing", &PyEndpoint::missing, "attempt"_a)
        .def("left", &PyEndpoint::left, "peer"_a)
        .def("close", &PyEndpoint::close)
        .def_rw("sequence", &PyEndpoint::counted);
}

}  // namespace
}  // namespace collx

NB_MODULE(_core, module) {
    using namespace collx;
    namespace nb = nanobind;
    nb::set_leak_warnings(false);  // a daemon thread that the interpreter ended keeps what it was using
    module.doc() = "The native engine of collx. Private: use collx.";
    module.attr("CHECKED") = kChecked;
    lone_thread = &only_thread;
    module.def("region_bytes", [](std::uint32_t size) { return Layout(size).heap_at; }, "size"_a);
    module.def("geometry", [](std::uint32_t size) {
        const Layout layout(size);
        return std::pair{layout.collective.slots, layout.collective.bytes};
    }, "size"_a);
    static Collectable<PreparedPlan> plan;
    nb::class_<Task>(module, "Task").def("done", [](const Task& task) {
        return task.done.load(std::memory_order_acquire) != 0;
    });
    nb::class_<PreparedPlan>(module, "Plan", nb::type_slots(plan.slots))
        .def(nb::init<const nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig>&, nb::object>(), "words"_a,
             "custom"_a.none())
        .def_rw("raised", &PreparedPlan::raised, nb::for_setter(nb::arg().none()));
    nb::class_<Region>(module, "Region")
        .def(nb::init<std::uint32_t, std::uint32_t, int>(), "rank"_a, "size"_a, "fd"_a)
        .def_static("allocate", &allocate, "region"_a, "bytes"_a);
    bind_control(module);
    bind_endpoint(module);
    bind_notes(module);
    bind_known(module);
    bind_quick(module);
}
