// Calls known from before: from the arguments of a collective straight to the plan that served arguments like these.
//
// A call is known again by everything that the checks in calls.py look at: dtype, flags and shape of its arrays (NumPy's,
// and torch's tensors), how they share memory, the numbers in its counts, and which objects its other arguments are. So what was right then is
// right now. All else is refused here, and goes the long way through Python, which checks, plans, or says what is wrong.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <unordered_map>

#include "module_endpoint.hpp"
#include "module_notes.hpp"

namespace collx {

inline constexpr std::size_t kRest = 3;    // arguments beside the arrays, at most
inline constexpr std::size_t kLength = 8;  // dimensions of an array; more are unusual, and go the long way
inline constexpr std::size_t kCounts = 32;  // numbers in one `counts=`; the same holds for more

// The memory of an array; none where there is no array.
struct Memory {
    std::byte* data = nullptr;
    std::uint64_t bytes = 0;
};

// Everything the checks look at, as words.
class Key {
  public:
    // `given`: the collective's name, x, out (None where there is none), the rest. False where such a call is never
    // known: it has an array neither of NumPy's own type nor of `kind` nor a tensor, or one that is not plain memory of a
    // native dtype.
    [[nodiscard]] bool read(PyObject* const* given, std::size_t count, const nb::object& kind);
    [[nodiscard]] const Memory& x() const { return x_; }
    [[nodiscard]] const Memory& out() const { return out_; }
    [[nodiscard]] bool has_tensor() const { return tensor_; }
    bool operator==(const Key& other) const {
        return count_ == other.count_ && std::memcmp(words_.data(), other.words_.data(), count_ * sizeof words_[0]) == 0;
    }

    struct Hash {
        std::size_t operator()(const Key& key) const;
    };

  private:
    void add(std::uint64_t word) { words_[count_++] = word; }
    [[nodiscard]] bool add_array(PyObject* object, const nb::object& kind, Memory& memory);
    [[nodiscard]] bool add_tensor(PyObject* object, Memory& memory);
    [[nodiscard]] bool add_rest(PyObject* object);

    std::array<std::uint64_t, 2 + kRest * (1 + kCounts) + 2 * (1 + kLength)> words_;
    std::size_t count_ = 0;
    Memory x_, out_;
    bool tensor_ = false;
};

// What a known call does: the plan, and where its result is.
struct Entry {
    enum class Result : std::uint8_t { nothing, x, out, fresh };

    nb::object prepared;  // as Python knows the plan
    PreparedPlan* plan = nullptr;
    std::array<nb::object, kRest + 1> kept;  // the name and the rest are known by identity
    Result result = Result::nothing;
    bool copied = false;  // it reads a copy of its input
    nb::object fill;      // what to set the result to before, if anything
    int dimensions = 0;  // of a fresh result
    std::array<std::intptr_t, kLength> shape{};
};

class Known {
  public:
    // `engine` is an Endpoint, or in its place what runs a plan, `(prepared, input, output, timeout, read, written)`, which
    // raises what that ends with, and returns whether it could be run at once. The last two keep input and output alive.
    // Or Notes, which calls are noted in; what is `prepared` is an Extent then.
    // `failed(prepared, outcome, error, timeout)` raises what an Endpoint's run ended with; `error` is a signal handler's.
    // `begin(collective, prepared, input, output, timeout, result, keep)` starts one, and returns its Work.
    Known(nb::object engine, nb::object failed, nb::object begin, nb::object kind, double timeout);

    // What the method returns, or NotImplemented where the call has to go the long way.
    nb::object recall(bool async_op, double timeout, PyObject* const* given, std::size_t count);
    void remember(nb::object prepared, nb::object result, nb::typed<nb::tuple, nb::object, nb::ellipsis> given,
                  bool copied, nb::object fill);
    void forget() { std::exchange(entries_, {}); }
    void pause(bool paused) { paused_ = paused; }  // nothing is known meanwhile
    void close();  // nothing is known from now on
    // Runs a plan, or returns false where that cannot be done at once.
    bool run(nb::handle prepared, PreparedPlan* plan, std::byte* input, std::byte* output, double timeout,
             nb::handle read, nb::handle written);
    [[nodiscard]] PreparedPlan* plan_of(nb::handle prepared) const;  // the endpoint's; null where there is none

    [[nodiscard]] double timeout() const { return timeout_; }
    void set_timeout(double seconds) { timeout_ = seconds; }

    int traverse(visitproc visit, void* arg);
    void clear();

  private:
    [[noreturn]] void raise(nb::handle prepared, Outcome outcome, double timeout);
    [[nodiscard]] bool idle() const { return endpoint_ == nullptr || endpoint_->idle(); }

    nb::object engine_, failed_, begin_, kind_;
    PyEndpoint* endpoint_;
    Notes* notes_;
    double timeout_;
    bool open_ = true, paused_ = false;
    std::unordered_map<Key, Entry, Key::Hash> entries_;
};

// A plan bound to memory, for handles.
class Bound {
  public:
    // `fill`: an array, and what to set it to before each run; or None. `result` is what a run returns,
    // `keep` keeps the memory alive.
    Bound(nb::object known, nb::object prepared, std::uintptr_t input, std::uintptr_t output, nb::object fill,
          nb::object result, nb::object keep);
    // Like Known::recall, for the one call; without a timeout it takes the communicator's.
    nb::object recall(const double* timeout);

    int traverse(visitproc visit, void* arg);
    void clear();

  private:
    nb::object known_, prepared_, filled_, fill_, result_, keep_;
    Known* knows_;
    PreparedPlan* plan_;
    std::byte *input_, *output_;
};

void bind_known(nb::module_& module);

}  // namespace collx
