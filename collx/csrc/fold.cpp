// Folds of many sources into many targets, tile by tile.
#include <algorithm>

#include "kernels.hpp"

namespace collx {
namespace {

// A fourth of the smallest L1 in use: a tile of the result and of two operands fit, with what the prefetcher brings.
constexpr std::size_t tile_bytes = 8192;

void* at(void* base, std::size_t offset) noexcept { return static_cast<char*>(base) + offset; }
const void* at(const void* base, std::size_t offset) noexcept { return static_cast<const char*>(base) + offset; }

// Intermediate results stay in a tile of our own: a target is written once, after all sources have been read, so it may
// be any of them.
void fold_tile(Fold2 combine, void* target, const void* const* sources, int k, std::size_t offset,
               std::size_t count) noexcept {
    alignas(64) std::byte partial[tile_bytes];
    const void* left = at(sources[0], offset);
    for (int i = 1; i < k - 1; ++i) {
        combine(partial, left, at(sources[i], offset), count);
        left = partial;
    }
    combine(target, left, at(sources[k - 1], offset), count);
}

}  // namespace

void fold(DType dtype, Op op, void* const* targets, int m, const void* const* sources, int k, std::size_t bytes,
          std::uint32_t streamed) noexcept {
    if (m == 0 || k == 0) return;
    const Fold2 combine = k > 1 ? fold2(dtype, op) : nullptr;
    const std::size_t item = k > 1 ? item_size(dtype) : 1;
    alignas(64) std::byte tile[tile_bytes];
    const bool direct = !(streamed & 1);  // the result goes to a target at once, and from there to the others
    const std::size_t step = m == 1 && (k == 1 || (k == 2 && direct)) ? bytes : tile_bytes;
    for (std::size_t offset = 0; offset < bytes; offset += step) {
        const std::size_t length = std::min(step, bytes - offset);
        const void* result = k == 1 ? at(sources[0], offset) : direct ? at(targets[0], offset) : tile;
        if (k > 1) fold_tile(combine, direct ? at(targets[0], offset) : tile, sources, k, offset, length / item);
        for (int i = k > 1 && direct ? 1 : 0; i < m; ++i)
            (streamed >> i & 1 ? copy_nt : copy)(at(targets[i], offset), result, length);
    }
}

}  // namespace collx
