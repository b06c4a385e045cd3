// Copies between staging and user memory. Not memcpy: NumPy's large arrays start at page + 16, and the `rep movsb` that
// libc then picks reads another core's cache at half speed.
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

#include "kernels.hpp"

namespace collx {
namespace {

constexpr std::size_t line = 64;

// Under this, a call of memcpy is branches and vector moves, never `rep movsb`.
constexpr std::size_t small = 256;

std::size_t to_line(const void* address) noexcept {
    return (line - reinterpret_cast<std::uintptr_t>(address) % line) % line;
}

template <std::size_t bytes>
struct Vector {
    typedef unsigned char Aligned __attribute__((vector_size(bytes), may_alias));
    typedef unsigned char Loose __attribute__((vector_size(bytes), may_alias, aligned(1)));
};

// Whole lines to an aligned destination. The empty asm keeps the compiler from making a memcpy of the loop.
template <std::size_t vector>
struct LineLoop {
    [[gnu::always_inline]] static void run(std::byte* dst, const std::byte* src, std::size_t lines) noexcept {
        for (; lines; --lines, dst += line, src += line) {
            for (std::size_t i = 0; i < line; i += vector) {
                *reinterpret_cast<typename Vector<vector>::Aligned*>(dst + i) =
                    *reinterpret_cast<const typename Vector<vector>::Loose*>(src + i);
            }
            asm volatile("" ::: "memory");
        }
    }
};

#if defined(__x86_64__)
void stream_lines(std::byte* dst, const std::byte* src, std::size_t lines) noexcept {
    for (; lines; --lines, dst += line, src += line) {
        for (std::size_t i = 0; i < line; i += sizeof(__m128i)) {
            const __m128i piece = _mm_loadu_si128(reinterpret_cast<const __m128i*>(src + i));
            _mm_stream_si128(reinterpret_cast<__m128i*>(dst + i), piece);
        }
    }
}
#endif

using Lines = void (*)(std::byte* dst, const std::byte* src, std::size_t lines);

template <std::size_t vector>
using CopyLines = Compiled<LineLoop<vector>, std::byte*, const std::byte*, std::size_t>;

Lines widest_lines() noexcept {
    switch (widest_simd()) {
        case Simd::avx512: return CopyLines<64>::avx512;
        case Simd::avx2: return CopyLines<32>::avx2;
        default: return CopyLines<16>::baseline;
    }
}

// The ends by memcpy, what is between them in whole lines of the destination.
void copy_by(Lines lines, std::byte* dst, const std::byte* src, std::size_t bytes) noexcept {
    const std::size_t head = to_line(dst);
    const std::size_t body = (bytes - head) / line * line;
    const std::size_t tail = bytes - head - body;
    std::memcpy(dst, src, head);
    lines(dst + head, src + head, body / line);
    std::memcpy(dst + head + body, src + head + body, tail);
}

}  // namespace

void copy(void* dst, const void* src, std::size_t bytes) noexcept {
    if (dst == src || bytes == 0) return;
    if (bytes <= small) std::memcpy(dst, src, bytes);
    else copy_by(widest_lines(), static_cast<std::byte*>(dst), static_cast<const std::byte*>(src), bytes);
}

void copy_nt(void* dst, const void* src, std::size_t bytes) noexcept {
#if defined(__x86_64__)
    if (dst == src || bytes <= small) return copy(dst, src, bytes);
    copy_by(stream_lines, static_cast<std::byte*>(dst), static_cast<const std::byte*>(src), bytes);
    _mm_sfence();
#else
    copy(dst, src, bytes);
#endif
}

}  // namespace collx
