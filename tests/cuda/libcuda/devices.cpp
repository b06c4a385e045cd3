// ---- devices, and contexts, of which each has one

extern "C" {

CUresult CUDAAPI cuInit(unsigned flags) {
    REFUSED_IF(flags, INVALID_VALUE);
    REFUSED_IF(!devices(), NO_DEVICE);
    initialised = true;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDriverGetVersion(int* version) {
    *version = 13000;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetCount(int* count) {
    REFUSED_IF(!initialised, NOT_INITIALIZED);
    *count = devices();
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGet(CUdevice* device, int ordinal) {
    REFUSED_IF(!initialised, NOT_INITIALIZED);
    REFUSED_IF(absent(ordinal), INVALID_DEVICE);
    *device = ordinal;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetName(char* name, int room, CUdevice device) {
    REFUSED_IF(absent(device), INVALID_DEVICE);
    std::snprintf(name, static_cast<std::size_t>(room), "host %d", device);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetUuid_v2(CUuuid* uuid, CUdevice device) {
    REFUSED_IF(absent(device), INVALID_DEVICE);
    for (int index = 0; index < 16; ++index) uuid->bytes[index] = static_cast<char>(0xf0 + index);
    uuid->bytes[0] = static_cast<char>(device);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetAttribute(int* value, CUdevice_attribute which, CUdevice device) {
    REFUSED_IF(absent(device), INVALID_DEVICE);
    switch (which) {
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: return *value = 9, CUDA_SUCCESS;
        case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: return *value = 0, CUDA_SUCCESS;
        case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: return *value = 2, CUDA_SUCCESS;
        case CU_DEVICE_ATTRIBUTE_MPS_ENABLED: return *value = std::getenv("COLLX_LIBCUDA_MPS") != nullptr, CUDA_SUCCESS;
        default: return CUDA_ERROR_INVALID_VALUE;
    }
}

CUresult CUDAAPI cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
    REFUSED_IF(absent(device), INVALID_DEVICE);
    retained[device] = true;
    *context = &contexts[device];
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDevicePrimaryCtxGetState(CUdevice device, unsigned* flags, int* active) {
    REFUSED_IF(absent(device), INVALID_DEVICE);
    *flags = 0;
    *active = retained[device];
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxPushCurrent_v2(CUcontext context) {
    REFUSED_IF(context != &contexts[0] && context != &contexts[1], INVALID_CONTEXT);
    current.push_back(context);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxPopCurrent_v2(CUcontext* context) {
    REFUSED_IF(current.empty(), INVALID_CONTEXT);
    if (context) *context = current.back();
    current.pop_back();
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxGetDevice(CUdevice* device) {
    NEEDS_CONTEXT;
    *device = current.back()->device;
    return CUDA_SUCCESS;
}

}  // extern "C"
