// What there is: memory, streams, events and kernels, and which of them are in use.

using Kernel = void (*)(unsigned, unsigned, unsigned, const void*);

struct CUctx_st {
    int device;
};

// What is queued is done in order by a thread, which may end with the process.
struct CUstream_st {
    std::mutex lock;
    std::condition_variable change;
    std::deque<std::function<void()>> work;
    bool busy = false, over = false;

    CUstream_st() { std::thread([this] { run(); }).detach(); }

    void queue(std::function<void()> what) {
        std::lock_guard<std::mutex> held(lock);
        work.push_back(std::move(what));
        change.notify_all();
    }

    void drained() {
        std::unique_lock<std::mutex> held(lock);
        change.wait(held, [this] { return work.empty() && !busy; });
    }

    void run() {
        std::unique_lock<std::mutex> held(lock);
        for (;;) {
            change.wait(held, [this] { return !work.empty() || over; });
            if (work.empty()) return;
            auto next = std::move(work.front());
            work.pop_front();
            busy = true;
            held.unlock();
            next();
            held.lock();
            busy = false;
            change.notify_all();
        }
    }
};

// How often it was recorded, and how many of these records were reached: in memory that other processes can map.
struct Progress {
    std::atomic<std::uint64_t> recorded, reached;
};

struct CUevent_st {
    Progress* progress;
    int file;
    unsigned flags;
    bool opened;
    std::atomic<double> at{0};

    bool done() const { return progress->reached >= progress->recorded; }
};

struct CUfunc_st {
    Kernel run;
    unsigned argument;  // bytes
};

struct CUmod_st {
    std::string image;
};

namespace {

struct Block {
    CUdeviceptr base;
    std::size_t bytes;
    unsigned long long id;
    int device;  // below 0: the host's
    int file;
    int opened;  // how often, where it is another process's
    CUipcMemHandle handle;
};

struct Handle {
    char kind[8];
    int process, file, device;
    unsigned long long bytes, id;
};
static_assert(sizeof(Handle) <= 64, "a handle has 64 bytes");

// Threads use these until the very end, so they are never destroyed.
auto& lock = *new std::recursive_mutex;
auto& blocks = *new std::map<CUdeviceptr, Block>;
auto& streams = *new std::set<CUstream>;
auto& events = *new std::set<CUevent>;
auto& modules = *new std::set<CUmodule>;
auto& functions = *new std::map<std::string, CUfunction>;
CUctx_st contexts[] = {{0}, {1}};
bool retained[2], initialised;
unsigned long long made;
thread_local std::vector<CUcontext> current;

using Held = std::lock_guard<std::recursive_mutex>;

int devices() { return std::getenv("COLLX_LIBCUDA_GPUS") ? std::atoi(std::getenv("COLLX_LIBCUDA_GPUS")) : 1; }

bool absent(CUdevice device) { return device < 0 || device >= devices(); }

// CUDA_SUCCESS where calls can be made that need a context.
CUresult usable() {
    if (!initialised) return CUDA_ERROR_NOT_INITIALIZED;
    return current.empty() ? CUDA_ERROR_INVALID_CONTEXT : CUDA_SUCCESS;
}

#define NEEDS_CONTEXT \
    if (CUresult outcome = usable(); outcome != CUDA_SUCCESS) return outcome; \
    Held held(lock)

#define REFUSED_IF(condition, error) \
    if (condition) return CUDA_ERROR_##error

Block* at(CUdeviceptr address, std::size_t bytes = 1) {
    auto after = blocks.upper_bound(address);
    if (after == blocks.begin()) return nullptr;
    Block& block = std::prev(after)->second;
    return address + bytes <= block.base + block.bytes ? &block : nullptr;
}

Block* beginning(CUdeviceptr base) {
    auto found = blocks.find(base);
    return found == blocks.end() ? nullptr : &found->second;
}

CUdeviceptr map(std::size_t bytes, int device, int file) {
    void* where = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (where == MAP_FAILED) return 0;
    auto base = reinterpret_cast<CUdeviceptr>(where);
    blocks[base] = Block{base, bytes, ++made, device, file, 0, {}};
    return base;
}

CUdeviceptr fresh(std::size_t bytes, int device) {
    int file = memfd_create("memory of a GPU", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, static_cast<off_t>(bytes))) return 0;
    return map(bytes, device, file);
}

void drop(Block& block) {
    munmap(reinterpret_cast<void*>(block.base), block.bytes);
    ::close(block.file);
    blocks.erase(block.base);
}

// Streams that are in use: 0, 1 and 2 are the default ones.
CUstream on(CUstream stream) {
    static CUstream legacy = new CUstream_st;
    thread_local CUstream own = nullptr;
    auto number = reinterpret_cast<std::uintptr_t>(stream);
    if (number < 2) return legacy;
    if (number == 2) return own ? own : own = new CUstream_st;
    return streams.count(stream) ? stream : nullptr;
}

// Others have something better to do with the processor.
void rest() { std::this_thread::sleep_for(std::chrono::microseconds(20)); }

void drain() {
    for (CUstream stream : std::set<CUstream>(streams)) stream->drained();
    on(nullptr)->drained();
}

int borrowed(const Handle& handle) {
    char path[64];
    std::snprintf(path, sizeof path, "/proc/%d/fd/%d", handle.process, handle.file);
    return ::open(path, O_RDWR | O_CLOEXEC);
}

template <class Type>
Handle read(const Type& from) {
    Handle handle;
    std::memcpy(&handle, &from, sizeof handle);
    return handle;
}

CUevent event(int file, unsigned flags, bool opened) {
    void* where = mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (where == MAP_FAILED) return nullptr;
    return *events.insert(new CUevent_st{static_cast<Progress*>(where), file, flags, opened, {0}}).first;
}

void* kernel(const std::string& name) {
    static void* library = dlopen(std::getenv("COLLX_LIBCUDA_KERNELS"), RTLD_NOW);
    return library ? dlsym(library, name.c_str()) : nullptr;
}

}  // namespace
