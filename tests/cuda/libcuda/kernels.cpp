// ---- kernels

extern "C" {

CUresult CUDAAPI cuModuleLoadData(CUmodule* module, const void* image) {
    NEEDS_CONTEXT;
    Elf64_Ehdr head;
    std::memcpy(&head, image, sizeof head);
    REFUSED_IF(std::memcmp(head.e_ident, ELFMAG, SELFMAG) || head.e_machine != EM_CUDA, INVALID_IMAGE);
    std::size_t sections = head.e_shoff + head.e_shnum * head.e_shentsize;
    std::size_t segments = head.e_phoff + head.e_phnum * head.e_phentsize;
    *module = *modules.insert(new CUmod_st{{static_cast<const char*>(image), std::max(sections, segments)}}).first;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
    NEEDS_CONTEXT;
    REFUSED_IF(!modules.count(module), INVALID_HANDLE);
    std::string called = name;
    REFUSED_IF(module->image.find(".text." + called + '\0') == std::string::npos, NOT_FOUND);
    auto run = reinterpret_cast<Kernel>(kernel("run_" + called));
    auto* argument = static_cast<unsigned*>(kernel("argument_of_" + called));
    REFUSED_IF(!run || !argument, NOT_FOUND);
    if (!functions.count(called)) functions[called] = new CUfunc_st{run, *argument};
    *function = functions[called];
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuFuncLoad(CUfunction function) {
    NEEDS_CONTEXT;
    for (auto& [name, known] : functions)
        if (known == function) return CUDA_SUCCESS;
    return CUDA_ERROR_INVALID_HANDLE;
}

CUresult CUDAAPI cuLaunchKernel(CUfunction function, unsigned x, unsigned y, unsigned z, unsigned width, unsigned height,
                                unsigned depth, unsigned shared, CUstream stream, void** parameters, void** extra) {
    NEEDS_CONTEXT;
    REFUSED_IF(!on(stream), INVALID_HANDLE);
    REFUSED_IF(!x || !y || z != 1 || !width || width > 1024 || height != 1 || depth != 1, INVALID_VALUE);
    REFUSED_IF(shared || !parameters || extra, INVALID_VALUE);
    auto* bytes = static_cast<const char*>(parameters[0]);
    std::vector<char> argument(bytes, bytes + function->argument);
    on(stream)->queue([=] { function->run(x, y, width, argument.data()); });
    return CUDA_SUCCESS;
}

}  // extern "C"
