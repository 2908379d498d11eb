// Launches on the emulated GPU of gpu_shim.h, after cuda/gpu.cu.
static Call emulated_call;
static bool emulated_staged;

static void emulated_thread() {
#if defined(LB_GATHER)
    gather(emulated_call);
#elif defined(LB_ONLY_ROWS)
    rows(emulated_call);
#elif defined(LB_ONLY_STAGED)
    staged(emulated_call);
#else
    if (emulated_staged) {
        staged(emulated_call);
    } else {
        rows(emulated_call);
    }
#endif
    finished[running] = true;
}

// 0, or 1: the threads did not meet. `backwards`: the last thread goes first.
extern "C" int emulated_launch(const Call *call, int staged, int blocks, int threads, int shared,
                               int backwards) {
    emulated_call = *call;
    emulated_staged = staged;
    blockDim.x = threads;
    if (threads > MOST_THREADS || shared > (int)sizeof(lb_shared)) return 1;
    for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
        // Nobody may read what was not written: as a float it is NaN, as an integer it is large.
        memset(lb_shared, 0xff, sizeof(lb_shared));
        for (int i = 0; i < threads; ++i) {
            finished[i] = false;
            meetings[i] = 0;
            getcontext(&fibres[i]);
            fibres[i].uc_stack.ss_sp = stacks[i];
            fibres[i].uc_stack.ss_size = STACK;
            fibres[i].uc_link = &scheduler;
            makecontext(&fibres[i], emulated_thread, 0);
        }
        for (bool any = true; any;) {
            any = false;
            for (int i = 0; i < threads; ++i) {
                running = backwards ? threads - 1 - i : i;
                if (finished[running]) continue;
                threadIdx.x = running;
                swapcontext(&scheduler, &fibres[running]);
                any = any || !finished[running];
            }
            for (int i = 0; i < threads; ++i)
                if (meetings[i] != meetings[0]) return 1;
        }
        // Beyond what was asked for nothing may have been written.
        for (int i = shared; i < (int)sizeof(lb_shared); ++i)
            if (lb_shared[i] != 0xff) return 1;
    }
    return 0;
}
