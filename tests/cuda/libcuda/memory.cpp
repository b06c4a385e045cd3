// ---- memory of devices, of peers and of the host

extern "C" {

CUresult CUDAAPI cuMemAlloc_v2(CUdeviceptr* base, std::size_t bytes) {
    NEEDS_CONTEXT;
    REFUSED_IF(!bytes, INVALID_VALUE);
    *base = fresh(bytes, current.back()->device);
    return *base ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult CUDAAPI cuMemFree_v2(CUdeviceptr base) {
    NEEDS_CONTEXT;
    Block* block = beginning(base);
    REFUSED_IF(!block || block->device < 0 || block->opened, INVALID_VALUE);
    drain();
    std::memset(reinterpret_cast<void*>(base), 0xdd, block->bytes);  // whoever still has it mapped is to notice
    drop(*block);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemsetD8_v2(CUdeviceptr address, unsigned char value, std::size_t bytes) {
    NEEDS_CONTEXT;
    REFUSED_IF(!at(address, bytes), INVALID_VALUE);
    std::memset(reinterpret_cast<void*>(address), value, bytes);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemGetAddressRange_v2(CUdeviceptr* base, std::size_t* bytes, CUdeviceptr address) {
    NEEDS_CONTEXT;
    Block* block = at(address);
    REFUSED_IF(!block || block->device < 0, NOT_FOUND);
    if (base) *base = block->base;
    if (bytes) *bytes = block->bytes;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuPointerGetAttribute(void* value, CUpointer_attribute which, CUdeviceptr address) {
    NEEDS_CONTEXT;
    Block* block = at(address);
    REFUSED_IF(!block, INVALID_VALUE);
    switch (which) {
        case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
            *static_cast<unsigned*>(value) = block->device < 0 ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
            return CUDA_SUCCESS;
        case CU_POINTER_ATTRIBUTE_BUFFER_ID:
            *static_cast<unsigned long long*>(value) = block->id;
            return CUDA_SUCCESS;
        case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
            *static_cast<int*>(value) = block->device;
            return CUDA_SUCCESS;
        default: return CUDA_ERROR_INVALID_VALUE;
    }
}

CUresult CUDAAPI cuIpcGetMemHandle(CUipcMemHandle* handle, CUdeviceptr base) {
    NEEDS_CONTEXT;
    Block* block = beginning(base);
    REFUSED_IF(!block || block->device < 0 || block->opened, INVALID_VALUE);
    Handle told = {"memory", getpid(), block->file, block->device, block->bytes, block->id};
    std::memset(handle, 0xa5, sizeof *handle);
    std::memcpy(handle, &told, sizeof told);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuIpcOpenMemHandle_v2(CUdeviceptr* base, CUipcMemHandle handle, unsigned flags) {
    NEEDS_CONTEXT;
    REFUSED_IF(flags != CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS, INVALID_VALUE);
    Handle told = read(handle);
    REFUSED_IF(std::strcmp(told.kind, "memory") || handle.reserved[63] != '\xa5', INVALID_HANDLE);
    REFUSED_IF(told.process == getpid(), INVALID_CONTEXT);
    for (auto& [where, block] : blocks)
        if (block.opened && !std::memcmp(&block.handle, &handle, sizeof handle)) {
            ++block.opened;
            *base = where;
            return CUDA_SUCCESS;
        }
    int file = borrowed(told);
    REFUSED_IF(file < 0, INVALID_HANDLE);
    *base = map(told.bytes, told.device, file);
    REFUSED_IF(!*base, MAP_FAILED);
    Block& block = blocks[*base];
    block.opened = 1;
    block.handle = handle;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuIpcCloseMemHandle(CUdeviceptr base) {
    NEEDS_CONTEXT;
    Block* block = beginning(base);
    REFUSED_IF(!block || !block->opened, INVALID_VALUE);
    drain();
    if (!--block->opened) drop(*block);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemHostAlloc(void** where, std::size_t bytes, unsigned flags) {
    NEEDS_CONTEXT;
    REFUSED_IF(!bytes || flags & ~7u, INVALID_VALUE);
    *where = reinterpret_cast<void*>(fresh(bytes, -1));
    return *where ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult CUDAAPI cuMemFreeHost(void* where) {
    NEEDS_CONTEXT;
    Block* block = beginning(reinterpret_cast<CUdeviceptr>(where));
    REFUSED_IF(!block || block->device >= 0, INVALID_VALUE);
    drain();
    drop(*block);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemcpyAsync(CUdeviceptr target, CUdeviceptr source, std::size_t bytes, CUstream stream) {
    NEEDS_CONTEXT;
    REFUSED_IF(!on(stream), INVALID_HANDLE);
    REFUSED_IF(bytes && (!at(target, bytes) || !at(source, bytes)), INVALID_VALUE);
    on(stream)->queue([=] { std::memmove(reinterpret_cast<void*>(target), reinterpret_cast<void*>(source), bytes); });
    return CUDA_SUCCESS;
}

}  // extern "C"
