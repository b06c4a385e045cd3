// ---- streams, events, and words that streams wait for

extern "C" {

CUresult CUDAAPI cuStreamCreateWithPriority(CUstream* stream, unsigned flags, int) {
    NEEDS_CONTEXT;
    REFUSED_IF(flags & ~1u, INVALID_VALUE);
    *stream = *streams.insert(new CUstream_st).first;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamDestroy_v2(CUstream stream) {
    NEEDS_CONTEXT;
    REFUSED_IF(!streams.count(stream), INVALID_HANDLE);
    streams.erase(stream);
    std::lock_guard<std::mutex> alone(stream->lock);
    stream->over = true;  // when all is done
    stream->change.notify_all();
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamSynchronize(CUstream stream) {
    if (CUresult outcome = usable(); outcome != CUDA_SUCCESS) return outcome;
    REFUSED_IF(!on(stream), INVALID_HANDLE);
    on(stream)->drained();
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus* status) {
    NEEDS_CONTEXT;
    REFUSED_IF(!on(stream), INVALID_HANDLE);
    *status = CU_STREAM_CAPTURE_STATUS_NONE;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode* mode) {
    static thread_local CUstreamCaptureMode own = CU_STREAM_CAPTURE_MODE_GLOBAL;
    std::swap(own, *mode);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuEventCreate(CUevent* made, unsigned flags) {
    NEEDS_CONTEXT;
    REFUSED_IF(flags & ~7u || (flags & CU_EVENT_INTERPROCESS && !(flags & CU_EVENT_DISABLE_TIMING)), INVALID_VALUE);
    int file = memfd_create("an event", MFD_CLOEXEC);
    REFUSED_IF(file < 0 || ftruncate(file, sizeof(Progress)), OUT_OF_MEMORY);
    *made = event(file, flags, false);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuEventDestroy_v2(CUevent event) {
    NEEDS_CONTEXT;
    REFUSED_IF(!events.count(event), INVALID_HANDLE);
    events.erase(event);  // it stays for what was queued with it
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuEventRecord(CUevent event, CUstream stream) {
    NEEDS_CONTEXT;
    REFUSED_IF(!events.count(event) || !on(stream), INVALID_HANDLE);
    std::uint64_t number = ++event->progress->recorded;
    on(stream)->queue([=] {
        event->at = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
        event->progress->reached = number;
    });
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuEventQuery(CUevent event) {
    NEEDS_CONTEXT;
    REFUSED_IF(!events.count(event), INVALID_HANDLE);
    return event->done() ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

CUresult CUDAAPI cuEventElapsedTime_v2(float* milliseconds, CUevent begun, CUevent ended) {
    NEEDS_CONTEXT;
    for (CUevent one : {begun, ended}) {
        REFUSED_IF(!events.count(one) || !one->progress->recorded, INVALID_HANDLE);
        REFUSED_IF(one->flags & CU_EVENT_DISABLE_TIMING, INVALID_HANDLE);
        REFUSED_IF(!one->done(), NOT_READY);
    }
    *milliseconds = static_cast<float>(ended->at - begun->at);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags) {
    NEEDS_CONTEXT;
    REFUSED_IF(flags, INVALID_VALUE);
    REFUSED_IF(!events.count(event) || !on(stream), INVALID_HANDLE);
    std::uint64_t number = event->progress->recorded;
    on(stream)->queue([=] {
        while (event->progress->reached < number) rest();
    });
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuIpcGetEventHandle(CUipcEventHandle* handle, CUevent event) {
    NEEDS_CONTEXT;
    REFUSED_IF(!events.count(event) || event->opened || !(event->flags & CU_EVENT_INTERPROCESS), INVALID_HANDLE);
    Handle told = {"event", getpid(), event->file, 0, 0, 0};
    std::memset(handle, 0xa5, sizeof *handle);
    std::memcpy(handle, &told, sizeof told);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuIpcOpenEventHandle(CUevent* opened, CUipcEventHandle handle) {
    NEEDS_CONTEXT;
    Handle told = read(handle);
    REFUSED_IF(std::strcmp(told.kind, "event") || handle.reserved[63] != '\xa5', INVALID_HANDLE);
    REFUSED_IF(told.process == getpid(), INVALID_CONTEXT);
    int file = borrowed(told);
    REFUSED_IF(file < 0, MAP_FAILED);
    *opened = event(file, CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING, true);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamWriteValue64_v2(CUstream stream, CUdeviceptr address, cuuint64_t value, unsigned flags) {
    NEEDS_CONTEXT;
    REFUSED_IF(!on(stream), INVALID_HANDLE);
    REFUSED_IF(flags || address % 8 || !at(address, 8), INVALID_VALUE);
    auto* word = reinterpret_cast<std::atomic<std::uint64_t>*>(address);
    on(stream)->queue([=] { *word = value; });
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamWaitValue64_v2(CUstream stream, CUdeviceptr address, cuuint64_t value, unsigned flags) {
    NEEDS_CONTEXT;
    REFUSED_IF(!on(stream), INVALID_HANDLE);
    REFUSED_IF(flags != CU_STREAM_WAIT_VALUE_GEQ || address % 8 || !at(address, 8), INVALID_VALUE);
    auto* word = reinterpret_cast<std::atomic<std::uint64_t>*>(address);
    on(stream)->queue([=] {
        while (static_cast<std::int64_t>(*word - value) < 0) rest();
    });
    return CUDA_SUCCESS;
}

}  // extern "C"
