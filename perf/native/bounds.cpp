// What memory allows: the loops that the bounds of collx.perf.bounds are measured with.
#include "kernels.hpp"

namespace {

enum class Kind : std::int32_t { copy_bypass, copy_plain, copy_libc, sum_plain, sum_bypass };

}  // namespace

// Does it `times` over `count` floats.
extern "C" [[gnu::visibility("default")]] void stick_move(Kind kind, float* target, const float* a, const float* b,
                                                            std::size_t count, int times) {
    using namespace stick;
    const float* both[] = {a, b};
    for (int time = 0; time < times; ++time) {
        switch (kind) {
            case Kind::copy_bypass: copy(target, a, count, true); break;
            case Kind::copy_plain: copy(target, a, count, false); break;
            case Kind::copy_libc: copy(target, a, count, false, Copy::libc); break;
            case Kind::sum_plain: sum<false>(target, nullptr, both, 2, count); break;
            case Kind::sum_bypass: sum<true>(target, nullptr, both, 2, count); break;
        }
        settle();
    }
}
