// Loops compiled once per instruction set, one of which is chosen at run time.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)
#define COLLX_AVX2 [[gnu::target("avx2")]]
#define COLLX_AVX512 [[gnu::target("avx2,avx512f,avx512bw,avx512vl,avx512dq")]]
#else
#define COLLX_AVX2
#define COLLX_AVX512
#endif

// Loops whose iterations do not depend on each other, whatever the pointers say.
#if defined(__clang__)
#pragma clang diagnostic ignored "-Wpass-failed"  // unoptimised builds do not vectorise
#define COLLX_INDEPENDENT _Pragma("clang loop vectorize(assume_safety) interleave(enable)")
#else
#define COLLX_INDEPENDENT _Pragma("GCC ivdep")
#endif

namespace collx {

enum class Simd { baseline, avx2, avx512 };

// The widest that this CPU and its system have.
inline Simd widest_simd() noexcept {
#if defined(__x86_64__)
    static const Simd widest = [] {
        if (!__builtin_cpu_supports("avx2")) return Simd::baseline;
        const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
        return avx512 ? Simd::avx512 : Simd::avx2;
    }();
    return widest;
#else
    return Simd::baseline;
#endif
}

// A T at any address: slots and views of NumPy arrays keep no alignment.
template <class T>
struct [[gnu::packed, gnu::may_alias]] Loose {
    T value;
};

// `Loop::run` compiled for each instruction set. It must be inlined to take it on. Unlike target_clones this needs no
// IFUNC, which sanitizers, musl and clang lack, and lets a test run every version.
template <class Loop, class... Arguments>
struct Compiled {
    static void baseline(Arguments... arguments) { Loop::run(arguments...); }
    COLLX_AVX2 static void avx2(Arguments... arguments) { Loop::run(arguments...); }
    COLLX_AVX512 static void avx512(Arguments... arguments) { Loop::run(arguments...); }

    static auto at(Simd simd) noexcept { return simd == Simd::avx512 ? avx512 : simd == Simd::avx2 ? avx2 : baseline; }
};

}  // namespace collx
