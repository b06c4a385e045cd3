#include "module_group.hpp"

#include <nanobind/ndarray.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>

#include "kernels.hpp"

namespace nb = nanobind;

namespace collx {

namespace {

using Words = nb::ndarray<const std::uint64_t, nb::ndim<1>, nb::c_contig>;

std::byte* at(std::uint64_t address) { return reinterpret_cast<std::byte*>(address); }

// Copies to a buffer, or from there, what lies `there[i]` bytes into the memory of part `parts[i]` and `here[i]` bytes
// into the buffer.
void copy_parts(const Words& addresses, std::uint64_t buffer, const Words& parts, const Words& there,
                const Words& here, const Words& lengths, bool inwards) {
    const std::size_t count = parts.size();
    if (there.size() != count || here.size() != count || lengths.size() != count)
        throw std::invalid_argument("copies have as many parts as offsets and lengths");
    for (std::size_t i = 0; i < count; ++i)
        if (parts.data()[i] >= addresses.size()) throw std::invalid_argument("no such part");
    const nb::gil_scoped_release release;
    for (std::size_t i = 0; i < count; ++i) {
        std::byte* const outer = at(addresses.data()[parts.data()[i]] + there.data()[i]);
        std::byte* const inner = at(buffer + here.data()[i]);
        if (inwards)
            collx::copy(inner, outer, lengths.data()[i]);
        else
            collx::copy(outer, inner, lengths.data()[i]);
    }
}

}  // namespace

void bind_group(nb::module_& module) {
    using namespace nanobind::literals;
    module.def("copy_parts", &copy_parts, "addresses"_a, "buffer"_a, "parts"_a, "there"_a, "here"_a, "lengths"_a,
               "inwards"_a);
}

}  // namespace collx
