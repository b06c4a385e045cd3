// A rank's memory file as Python holds it; module.cpp gives it its name.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <utility>

#include "heap.hpp"
#include "region.hpp"

namespace collx {

namespace nb = nanobind;

// Runs Python's signal handlers; true where one raised. They run in the main thread only, elsewhere this is nothing.
inline bool interrupted() {
    const nb::gil_scoped_acquire gil;
    return PyErr_CheckSignals() != 0;
}

// Whether no other thread runs Python code.
inline bool only_thread() {
    const nb::gil_scoped_acquire gil;
    PyThreadState* const first = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
    return PyThreadState_Next(first) == nullptr;
}

// A rank's own region, alive from the moment it is made: what peers map is never without its keeper.
class Region {
  public:
    Region(std::uint32_t own_rank, std::uint32_t size, int fd)
        : rank(own_rank), layout(size), mapping(fd, layout.heap_at), heap(mapping.bytes(), layout.heap_at, fd),
          keeper_(header()), process_(getpid()) {}
    ~Region() {
        if (getpid() == process_)
            release();
        else
            keeper_.forget();  // a forked child has no keeper thread to end
    }
    Region(const Region&) = delete;
    Region& operator=(const Region&) = delete;
    void release() {
        if (getpid() != process_) return;
        header().state.store(State::departed, std::memory_order_release);
        keeper_.release();
        heap.close();
    }

    const std::uint32_t rank;
    const Layout layout;
    const Mapping mapping;
    Heap heap;

  private:
    [[nodiscard]] Header& header() const { return Layout::header(mapping.bytes().data()); }

    Keeper keeper_;
    const int process_;
};

// `bytes` bytes of the region's heap, which go back to it with the array's last view.
inline nb::ndarray<nb::numpy, std::uint8_t, nb::ndim<1>> allocate(std::shared_ptr<Region> region,
                                                                   std::uint64_t bytes) {
    struct Held {
        std::shared_ptr<Region> region;
        Heap::Range range;
    };
    std::optional<Heap::Range> range;
    {
        const nb::gil_scoped_release release;
        range = region->heap.take(bytes, &interrupted);
    }
    if (!range) throw nb::python_error();
    std::byte* const memory = region->mapping.bytes().data() + range->offset;
    const nb::capsule owner(new Held{std::move(region), *range}, [](void* pointer) noexcept {
        const std::unique_ptr<Held> held(static_cast<Held*>(pointer));
        held->region->heap.give_back(held->range);
    });
    return {memory, {static_cast<std::size_t>(bytes)}, owner};
}

}  // namespace collx
