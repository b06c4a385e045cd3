// The calls of a group as they are noted: which, where their memory is, and what keeps it alive.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <tuple>
#include <utility>
#include <vector>

namespace collx {

namespace nb = nanobind;

// How much memory a call reads and writes; Python's class of a group's call is derived from this.
struct Extent {
    std::uint64_t read, written;  // bytes
};

class Notes {
  public:
    using Words = nb::ndarray<const std::uint64_t, nb::ndim<1>, nb::c_contig>;

    // `part` is an Extent; `read` and `written` keep what lies at `source` and at `target`.
    void note(nb::object part, std::uintptr_t source, std::uintptr_t target, nb::object read, nb::object written) {
        notes_.push_back({std::move(part), std::move(read), std::move(written), source, target});
    }
    // A call's own deadline, in seconds: the least of them is left in `limit`.
    void within(double seconds) { limit = seconds < limit ? seconds : limit; }
    // What has been noted; it begins anew.
    Notes take() { return std::exchange(*this, Notes()); }

    [[nodiscard]] std::size_t size() const { return notes_.size(); }
    [[nodiscard]] nb::tuple parts() const;
    [[nodiscard]] std::pair<std::uint64_t, std::uint64_t> addresses(std::size_t number) const {
        return {notes_.at(number).source, notes_.at(number).target};
    }
    // Whether no call writes what another one, or one of `others` (address, bytes, written), reads or writes.
    [[nodiscard]] bool disjoint(const std::vector<std::tuple<std::uint64_t, std::uint64_t, bool>>& others) const;
    // Copies to a buffer what the calls read (`inwards`), or from there what they write: what lies `there[i]` bytes into
    // the memory of call `numbers[i]` and `here[i]` bytes into the buffer.
    void copy(std::uint64_t buffer, const Words& numbers, const Words& there, const Words& here, const Words& lengths,
              bool inwards) const;

    int traverse(visitproc visit, void* arg);
    void clear() { notes_.clear(); }

    double limit = std::numeric_limits<double>::infinity();

  private:
    struct Note {
        nb::object part, read, written;
        std::uint64_t source, target;
    };
    std::vector<Note> notes_;
};

void bind_notes(nb::module_& module);

}  // namespace collx
