// Every kernel: its name in a call and its program. No guard, as lanes.h.
#include "lanes.h"

#include "fixed_point.h"

#include "spike.h"

#include "adaptation.h"
#include "cuba.h"
#include "leaky_integrator.h"
#include "loihi.h"
#include "loihi_sigma_delta.h"
#include "resonator.h"

#include "delta.h"
#include "shift.h"
#include "sigma.h"
#include "sigma_delta.h"

#define LB_KERNELS(KERNEL)                                          \
    KERNEL(leaky_integrator, LeakyIntegrator)                       \
    KERNEL(leaky_integrator_backward, LeakyIntegratorBackward)      \
    KERNEL(cuba, Cuba)                                              \
    KERNEL(cuba_slayer_backward, CubaSlayerBackward)                \
    KERNEL(cuba_reset_backward, CubaResetBackward)                  \
    KERNEL(delta, Delta)                                            \
    KERNEL(delta_backward, DeltaBackward)                           \
    KERNEL(delta_threshold, DeltaThreshold)                         \
    KERNEL(sigma, Sigma)                                            \
    KERNEL(sigma_backward, SigmaBackward)                           \
    KERNEL(sigma_delta, SigmaDelta)                                 \
    KERNEL(sigma_delta_backward, SigmaDeltaBackward)                \
    KERNEL(sigma_delta_threshold, SigmaDeltaThreshold)              \
    KERNEL(delay_gradient, DelayGradient)                           \
    KERNEL(spike, Spike)                                            \
    KERNEL(spike_backward, SpikeBackward)                           \
    KERNEL(phase_spike, PhaseSpike)                                 \
    KERNEL(phase_spike_backward, PhaseSpikeBackward)                \
    KERNEL(adaptive_threshold, AdaptiveThreshold)                   \
    KERNEL(adaptive_phase_threshold, AdaptivePhaseThreshold)        \
    KERNEL(alif, Alif)                                              \
    KERNEL(alif_backward, AlifBackward)                             \
    KERNEL(rf, ResonateAndFireAtPhaseZero)                          \
    KERNEL(rf_iz, ResonateAndFireIzhikevich)                        \
    KERNEL(adrf, AdaptiveAtPhaseZero)                               \
    KERNEL(adrf_iz, AdaptiveIzhikevich)                             \
    KERNEL(phase_zero_backward, PhaseZeroBackward)                  \
    KERNEL(izhikevich_backward, IzhikevichBackward)                 \
    KERNEL(resonator_backward, ResonatorBackward)                   \
    KERNEL(loihi_lif, LoihiLif)                                     \
    KERNEL(loihi_rf, LoihiRf)                                       \
    KERNEL(loihi_rf_iz, LoihiRfIzhikevich)                          \
    KERNEL(loihi_sigma, LoihiSigma)                                 \
    KERNEL(loihi_delta, LoihiDelta)                                 \
    KERNEL(loihi_sigma_delta, LoihiSigmaDelta)

// Kernels without a state: each element of the output is one of the input, or zero. On the GPU a
// thread takes an element e = (o * steps + t) * inner + i, of as many bytes as in_type[0] says:
//     long long neuron = o * call.inner + i, from = Program<R>::source(call, neuron, t);
//     out[e] = from < 0 ? 0 : in[e + (from - t) * call.inner];
// with R, float or double, the dtype of the parameters. The backend's module then says GATHERS = True.
#define LB_GATHERS(GATHER)                                          \
    GATHER(shift, Shift)
