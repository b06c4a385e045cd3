#include "module_notes.hpp"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <stdexcept>

#include "kernels.hpp"
#include "module_garbage.hpp"

namespace collx {

namespace {

struct Stretch {
    std::uint64_t begin, end;
    bool written;
};

}  // namespace

nb::tuple Notes::parts() const {
    nb::object made = nb::steal(PyTuple_New(static_cast<Py_ssize_t>(notes_.size())));
    if (!made) throw nb::python_error();
    Py_ssize_t at = 0;
    for (const Note& note : notes_) PyTuple_SET_ITEM(made.ptr(), at++, nb::object(note.part).release().ptr());
    return nb::borrow<nb::tuple>(made);
}

bool Notes::disjoint(const std::vector<std::tuple<std::uint64_t, std::uint64_t, bool>>& others) const {
    std::vector<Stretch> found;
    found.reserve(2 * notes_.size() + others.size());
    for (const Note& note : notes_) {
        const Extent& extent = *nb::inst_ptr<Extent>(note.part);
        const Stretch read{note.source, note.source + extent.read, false};
        const Stretch written{note.target, note.target + extent.written, true};
        if (read.begin < written.end && written.begin < read.end) {  // in place
            found.push_back({std::min(read.begin, written.begin), std::max(read.end, written.end), true});
        } else {
            if (extent.read > 0) found.push_back(read);
            if (extent.written > 0) found.push_back(written);
        }
    }
    for (const auto& [begin, bytes, written] : others)
        if (bytes > 0) found.push_back({begin, begin + bytes, written});
    std::ranges::sort(found, {}, &Stretch::begin);
    std::uint64_t end = 0, end_written = 0;  // of what begins before
    for (const Stretch& stretch : found) {
        if (stretch.begin < (stretch.written ? end : end_written)) return false;
        end = std::max(end, stretch.end);
        if (stretch.written) end_written = std::max(end_written, stretch.end);
    }
    return true;
}

void Notes::copy(std::uint64_t buffer, const Words& numbers, const Words& there, const Words& here,
                 const Words& lengths, bool inwards) const {
    const std::size_t count = numbers.size();
    if (there.size() != count || here.size() != count || lengths.size() != count)
        throw std::invalid_argument("copies have as many numbers as offsets and lengths");
    const nb::gil_scoped_release release;
    const auto at = [](std::uint64_t address) { return reinterpret_cast<std::byte*>(address); };
    for (std::size_t i = 0; i < count; ++i) {
        const Note& note = notes_.at(numbers.data()[i]);
        std::byte* const inner = at(buffer + here.data()[i]);
        std::byte* const outer = at((inwards ? note.source : note.target) + there.data()[i]);
        collx::copy(inwards ? inner : outer, inwards ? outer : inner, lengths.data()[i]);
    }
}

int Notes::traverse(visitproc visit, void* arg) {
    for (const Note& note : notes_)
        for (const nb::object* object : {&note.part, &note.read, &note.written}) Py_VISIT(object->ptr());
    return 0;
}

void bind_notes(nb::module_& module) {
    using namespace nanobind::literals;
    static Collectable<Notes> collected;
    nb::class_<Extent>(module, "Extent")
        .def("__init__", [](Extent* made, std::uint64_t read, std::uint64_t written) {
            new (made) Extent{read, written};
        }, "read"_a, "written"_a);
    nb::class_<Notes>(module, "Notes", nb::type_slots(collected.slots))
        .def(nb::init<>())
        .def("note", [](Notes& self, nb::handle_t<Extent> part, std::uintptr_t source, std::uintptr_t target,
                        nb::object read, nb::object written) {
            self.note(nb::borrow(part), source, target, std::move(read), std::move(written));
        }, "part"_a, "source"_a, "target"_a, "read"_a.none(), "written"_a.none())
        .def("within", &Notes::within, "seconds"_a)
        .def("__len__", &Notes::size)
        .def("take", &Notes::take)
        .def("parts", &Notes::parts, nb::sig("def parts(self) -> tuple[typing.Any, ...]"))
        .def("addresses", &Notes::addresses, "number"_a)
        .def("disjoint", &Notes::disjoint, "others"_a)
        .def("copy", &Notes::copy, "buffer"_a, "numbers"_a, "there"_a, "here"_a, "lengths"_a, "inwards"_a)
        .def_ro("limit", &Notes::limit);
}

}  // namespace collx
