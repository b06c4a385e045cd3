// Copies and sums of float32 for the measuring sticks: whole lines of an aligned destination, with plain stores or with
// ones that bypass the caches.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace stick {

inline constexpr std::size_t kLine = 16;  // floats

typedef float Aligned __attribute__((vector_size(64), aligned(64), may_alias));
typedef float Loose __attribute__((vector_size(64), aligned(4), may_alias));

template <bool bypass>
inline void store(float* at, const Aligned& line) {
    if constexpr (!bypass) {
        *reinterpret_cast<Aligned*>(at) = line;
    } else {
#if defined(__AVX512F__)
        _mm512_stream_ps(at, reinterpret_cast<const __m512&>(line));
#elif defined(__SSE2__)
        for (std::size_t i = 0; i < 4; ++i) _mm_stream_ps(at + 4 * i, reinterpret_cast<const __m128*>(&line)[i]);
#else
        *reinterpret_cast<Aligned*>(at) = line;
#endif
    }
}

// Orders what bypassed the caches ahead of the flag that tells of it.
inline void settle() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

inline std::size_t head(const float* at, std::size_t count) {
    return std::min(count, (kLine - reinterpret_cast<std::uintptr_t>(at) / sizeof(float) % kLine) % kLine);
}

// target[i] = sources[0][i] + ... + sources[K - 1][i], from the left; `twin` gets the same where there is one.
template <int K, bool bypass, bool twins>
inline void sum_fixed(float* target, float* twin, const float* const* sources, std::size_t count) {
    auto one = [&](std::size_t i) {
        float total = sources[0][i];
        for (int k = 1; k < K; ++k) total += sources[k][i];
        target[i] = total;
        if (twins) twin[i] = total;
    };
    const std::size_t begin = head(target, count), end = begin + (count - begin) / kLine * kLine;
    for (std::size_t i = 0; i < begin; ++i) one(i);
    for (std::size_t i = begin; i < end; i += kLine) {
        Aligned total = *reinterpret_cast<const Loose*>(sources[0] + i);
        for (int k = 1; k < K; ++k) total += *reinterpret_cast<const Loose*>(sources[k] + i);
        store<bypass>(target + i, total);
        if (twins) *reinterpret_cast<Loose*>(twin + i) = total;
        asm volatile("" ::: "memory");  // this loop stays this loop
    }
    for (std::size_t i = end; i < count; ++i) one(i);
}

template <bool bypass, bool twins = false>
inline void sum(float* target, float* twin, const float* const* sources, int k, std::size_t count) {
    switch (k) {
        case 1: return sum_fixed<1, bypass, twins>(target, twin, sources, count);
        case 2: return sum_fixed<2, bypass, twins>(target, twin, sources, count);
        case 3: return sum_fixed<3, bypass, twins>(target, twin, sources, count);
        case 4: return sum_fixed<4, bypass, twins>(target, twin, sources, count);
        case 5: return sum_fixed<5, bypass, twins>(target, twin, sources, count);
        case 6: return sum_fixed<6, bypass, twins>(target, twin, sources, count);
        case 7: return sum_fixed<7, bypass, twins>(target, twin, sources, count);
        default: return sum_fixed<8, bypass, twins>(target, twin, sources, count);
    }
}

enum class Copy : std::int32_t { lines, rep_movsb, libc };

inline void copy(float* target, const float* source, std::size_t count, bool bypass, Copy kind = Copy::lines) {
    if (bypass) return sum<true>(target, nullptr, &source, 1, count);
#if defined(__x86_64__)
    if (kind == Copy::rep_movsb) {
        std::size_t bytes = count * sizeof(float);
        asm volatile("rep movsb" : "+D"(target), "+S"(source), "+c"(bytes)::"memory");
        return;
    }
#endif
    if (kind == Copy::libc) std::memcpy(target, source, count * sizeof(float));
    else sum<false>(target, nullptr, &source, 1, count);
}

}  // namespace stick
