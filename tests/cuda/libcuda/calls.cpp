// ---- by what name and release cuda-bindings finds all these, and what NVRTC asks a driver for

extern "C" {

CUresult CUDAAPI cuGetExportTable(const void** table, const CUuuid*) {
    *table = nullptr;
    return CUDA_ERROR_NOT_FOUND;
}

CUresult CUDAAPI cuGetProcAddress_v2(const char* name, void** found, int version, cuuint64_t,
                                     CUdriverProcAddressQueryResult* status) {
#define SINCE(version, name, call) {name, {version, reinterpret_cast<void*>(call)}}
    static const std::multimap<std::string, std::pair<int, void*>> calls = {
        SINCE(2000, "cuInit", cuInit),
        SINCE(2020, "cuDriverGetVersion", cuDriverGetVersion),
        SINCE(2000, "cuDeviceGetCount", cuDeviceGetCount),
        SINCE(2000, "cuDeviceGet", cuDeviceGet),
        SINCE(2000, "cuDeviceGetName", cuDeviceGetName),
        SINCE(9020, "cuDeviceGetUuid", cuDeviceGetUuid_v2),  // the same but for instances of a GPU
        SINCE(11040, "cuDeviceGetUuid", cuDeviceGetUuid_v2),
        SINCE(2000, "cuDeviceGetAttribute", cuDeviceGetAttribute),
        SINCE(7000, "cuDevicePrimaryCtxRetain", cuDevicePrimaryCtxRetain),
        SINCE(7000, "cuDevicePrimaryCtxGetState", cuDevicePrimaryCtxGetState),
        SINCE(4000, "cuCtxPushCurrent", cuCtxPushCurrent_v2),
        SINCE(4000, "cuCtxPopCurrent", cuCtxPopCurrent_v2),
        SINCE(2000, "cuCtxGetDevice", cuCtxGetDevice),
        SINCE(3020, "cuMemAlloc", cuMemAlloc_v2),
        SINCE(3020, "cuMemFree", cuMemFree_v2),
        SINCE(3020, "cuMemsetD8", cuMemsetD8_v2),
        SINCE(3020, "cuMemGetAddressRange", cuMemGetAddressRange_v2),
        SINCE(4000, "cuPointerGetAttribute", cuPointerGetAttribute),
        SINCE(4010, "cuIpcGetMemHandle", cuIpcGetMemHandle),
        SINCE(11000, "cuIpcOpenMemHandle", cuIpcOpenMemHandle_v2),
        SINCE(4010, "cuIpcCloseMemHandle", cuIpcCloseMemHandle),
        SINCE(2020, "cuMemHostAlloc", cuMemHostAlloc),
        SINCE(2000, "cuMemFreeHost", cuMemFreeHost),
        SINCE(4000, "cuMemcpyAsync", cuMemcpyAsync),
        SINCE(5050, "cuStreamCreateWithPriority", cuStreamCreateWithPriority),
        SINCE(4000, "cuStreamDestroy", cuStreamDestroy_v2),
        SINCE(2000, "cuStreamSynchronize", cuStreamSynchronize),
        SINCE(10000, "cuStreamIsCapturing", cuStreamIsCapturing),
        SINCE(10010, "cuThreadExchangeStreamCaptureMode", cuThreadExchangeStreamCaptureMode),
        SINCE(2000, "cuEventCreate", cuEventCreate),
        SINCE(4000, "cuEventDestroy", cuEventDestroy_v2),
        SINCE(2000, "cuEventRecord", cuEventRecord),
        SINCE(2000, "cuEventQuery", cuEventQuery),
        SINCE(2000, "cuEventElapsedTime", cuEventElapsedTime_v2),  // which agree where there are no graphs
        SINCE(12080, "cuEventElapsedTime", cuEventElapsedTime_v2),
        SINCE(3020, "cuStreamWaitEvent", cuStreamWaitEvent),
        SINCE(4010, "cuIpcGetEventHandle", cuIpcGetEventHandle),
        SINCE(4010, "cuIpcOpenEventHandle", cuIpcOpenEventHandle),
        SINCE(11070, "cuStreamWriteValue64", cuStreamWriteValue64_v2),
        SINCE(11070, "cuStreamWaitValue64", cuStreamWaitValue64_v2),
        SINCE(2000, "cuModuleLoadData", cuModuleLoadData),
        SINCE(2000, "cuModuleGetFunction", cuModuleGetFunction),
        SINCE(12040, "cuFuncLoad", cuFuncLoad),
        SINCE(4000, "cuLaunchKernel", cuLaunchKernel),
    };
    *found = nullptr;
    int newest = 0;
    auto [begin, end] = calls.equal_range(name);
    for (auto each = begin; each != end; ++each)
        if (auto [since, call] = each->second; since <= version && since > newest) newest = since, *found = call;
    if (status) *status = *found ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return *found ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

}  // extern "C"
