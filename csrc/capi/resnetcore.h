/* resnetcore in C: the block as pure functions, and networks that are loaded, run, trained and saved.
 *
 * Every function that can fail returns RC_OK or an error code, and says what was wrong in rc_last_error(); whatever a
 * call was to change is then as it was (but for results of rc_residual_backward and rc_residual_update where memory ran
 * out). No exception leaves this library, and there is no Python in it.
 *
 * Any thread may call any function. Calls with one network take turns; a handle must outlive the calls that use it, and
 * a trainer keeps its network itself. Kernels run on threads of their own (rc_set_num_threads); results do not depend
 * on their number.
 *
 * Memory is the caller's, on the CPU or on a GPU, as each matrix says. Work on a GPU is the GPU's own, and its order
 * beside the caller's is that of the stream that a function ending in _on is given; the others come after what CUDA's
 * default stream was given, and wait for their work, as cudaMemcpy does. Nothing of CUDA is needed to build a program
 * with this header, and none is loaded before a GPU is asked for. The thread's CUDA device stays what it is.
 */
#ifndef RESNETCORE_H
#define RESNETCORE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define RC_API __attribute__((visibility("default")))
#else
#define RC_API
#endif

/* ---- Errors ---------------------------------------------------------------------------------------------------- */

/* Each is the exception of the same name in Python. */
typedef int32_t rc_status;
enum {
    RC_OK = 0,
    RC_VALUE_ERROR = 1,  /* a number out of its range, an unknown name, a null pointer, overlapping memory */
    RC_SHAPE_ERROR = 2,  /* matrices or layers that do not fit together, strides that are not taken */
    RC_DTYPE_ERROR = 3,  /* a dtype that is not taken here */
    RC_DEVICE_ERROR = 4, /* a GPU that is not there or fails, memory on another device, a stream that is not taken */
    RC_CHECKPOINT_ERROR = 5,    /* a file that is not a sound network */
    RC_BUILD_FEATURE_ERROR = 6, /* something that this build or this processor does not offer */
    RC_NON_FINITE = 7,          /* a loss or an update that became NaN or infinite */
    RC_OS_ERROR = 8,            /* a file that cannot be read or written */
    RC_MEMORY_ERROR = 9,
    RC_INTERNAL_ERROR = 10 /* a mistake in this library */
};

/* What the last call of this thread that failed has to say; "" where none did. Valid until the next one that fails. */
RC_API const char* rc_last_error(void);
/* The name of a code: "RC_SHAPE_ERROR". */
RC_API const char* rc_status_name(rc_status status);

/* ---- The library ----------------------------------------------------------------------------------------------- */

RC_API const char* rc_version(void);
/* The instruction set in use, such as "avx512"; NULL where RESNETCORE_ISA names none that runs here. */
RC_API const char* rc_isa(void);
/* Of the whole process, 1 to 1024. At first RESNETCORE_NUM_THREADS, else OMP_NUM_THREADS, else the CPUs there are. */
RC_API rc_status rc_set_num_threads(int threads);
RC_API int rc_get_num_threads(void);

/* ---- Devices and streams --------------------------------------------------------------------------------------- */

typedef int32_t rc_device;
enum {
    RC_CPU = 0,
    RC_CUDA = 1 /* the first GPU; RC_CUDA + 1 is the second */
};

/* The device called "cpu", "cuda" (the first GPU) or "cuda:1", and that work can be done on it: an error says why not.
 * CUDA is loaded here, and the kernels for that GPU, which may take seconds. */
RC_API rc_status rc_find_device(const char* name, rc_device* device);
/* "cuda:1"; NULL for a number that is none. Valid until this thread's next call. */
RC_API const char* rc_device_name(rc_device device);
/* How many GPUs this process sees; RC_DEVICE_ERROR where it is none, and why. */
RC_API rc_status rc_cuda_count(int* count);

/* A cudaStream_t of the GPU that does the work. What it was given before a call comes before the call's work, and what
 * it is given after the call, after: so a call need not wait, and returns while the GPU is still at it. The call's
 * memory on the GPU is then to be kept, and left as it is, by that order too; the CPU's is the caller's again. What
 * goes wrong later is told by a later call that waits.
 *
 * NULL names none, and the function is then the one without _on. So is stream 0: that waits, and is in order with the
 * default stream, which either of the two below names for a call that does not. A stream that is being captured into a
 * CUDA graph is an RC_DEVICE_ERROR; work of the CPU's takes no stream. */
typedef void* rc_stream;
#define RC_STREAM_LEGACY ((rc_stream)1)     /* cudaStreamLegacy */
#define RC_STREAM_PER_THREAD ((rc_stream)2) /* cudaStreamPerThread */

/* ---- Matrices -------------------------------------------------------------------------------------------------- */

typedef int32_t rc_dtype;
enum {
    RC_FLOAT32 = 0,
    RC_FLOAT64 = 1,
    RC_BFLOAT16 = 2, /* the upper half of a float32 */
    RC_INT64 = 3     /* labels only */
};

/* Element (i, j) is element i * stride + j of data, which is aligned to its element. A row vector is 1×N. What is only
 * read may have any stride, 0 and below too; the rows of what is written lie apart. Where rows is 0, data may be NULL.
 * Memory that cudaMalloc or cudaMallocManaged gave is the GPU's. Where a GPU does the work, what a matrix says is
 * looked at, and is an RC_DEVICE_ERROR where it is not so. Where the CPU does, a GPU's memory that is said to be the
 * CPU's ends the program, as any wrong pointer does. */
typedef struct {
    void* data;
    int64_t rows, columns, stride; /* stride in elements */
    rc_dtype dtype;
    rc_device device; /* whose memory it is */
} rc_matrix;

typedef int32_t rc_activation;
enum {
    RC_IDENTITY = 0,
    RC_RELU = 1,
    RC_LEAKY_RELU = 2,
    RC_ELU = 3,
    RC_GELU = 4,
    RC_SILU = 5,
    RC_TANH = 6,
    RC_SIGMOID = 7,
    RC_SOFTPLUS = 8
};
/* As Python spells it: "leaky_relu"; NULL for a number that is none. */
RC_API const char* rc_activation_name(rc_activation activation);

/* ---- The block, a = g(Σ A·W + b + Σ identity) ------------------------------------------------------------------ */

/* n ≥ 1 sources (B, K_s), as many weights (K_s, N), bias (1, N) or NULL, n_identity terms (B, N); out is (B, N). All
 * are of one dtype, float32, float64 or bfloat16; sums of bfloat16 are float32, and out may be that too, unrounded.
 * What is written overlaps nothing else. All is on one device, which does the work. */
RC_API rc_status rc_residual_forward(int n, const rc_matrix* sources, const rc_matrix* weights, const rc_matrix* bias,
                                     int n_identity, const rc_matrix* identity, rc_activation activation,
                                     rc_matrix* out);
RC_API rc_status rc_residual_forward_on(int n, const rc_matrix* sources, const rc_matrix* weights,
                                        const rc_matrix* bias, int n_identity, const rc_matrix* identity,
                                        rc_activation activation, rc_matrix* out, rc_stream stream);

/* From grad = ∂E/∂a, (B, N), and the a that rc_residual_forward gave: with δ = grad ⊙ g′, d_sources[s] = δ·W_sᵀ,
 * d_weights[s] = A_sᵀ·δ, d_bias = Σ_rows δ, d_identity[i] = δ, in the shapes of what they are gradients of. Any of the
 * four may be NULL where it is not wanted. In bfloat16, d_weights and d_bias may be float32, unrounded. */
RC_API rc_status rc_residual_backward(const rc_matrix* grad, const rc_matrix* a, int n, const rc_matrix* sources,
                                      const rc_matrix* weights, const rc_matrix* bias, int n_identity,
                                      const rc_matrix* identity, rc_activation activation, rc_matrix* d_sources,
                                      rc_matrix* d_weights, rc_matrix* d_bias, rc_matrix* d_identity);
RC_API rc_status rc_residual_backward_on(const rc_matrix* grad, const rc_matrix* a, int n, const rc_matrix* sources,
                                         const rc_matrix* weights, const rc_matrix* bias, int n_identity,
                                         const rc_matrix* identity, rc_activation activation, rc_matrix* d_sources,
                                         rc_matrix* d_weights, rc_matrix* d_bias, rc_matrix* d_identity,
                                         rc_stream stream);

/* The same, and W_s ← W_s − lr·A_sᵀ·δ and b ← b − lr·Σ_rows δ in place, once all gradients are taken; lr > 0. */
RC_API rc_status rc_residual_update(const rc_matrix* grad, const rc_matrix* a, int n, const rc_matrix* sources,
                                    rc_matrix* weights, rc_matrix* bias, int n_identity, const rc_matrix* identity,
                                    rc_activation activation, double lr, rc_matrix* d_sources, rc_matrix* d_identity);
RC_API rc_status rc_residual_update_on(const rc_matrix* grad, const rc_matrix* a, int n, const rc_matrix* sources,
                                       rc_matrix* weights, rc_matrix* bias, int n_identity, const rc_matrix* identity,
                                       rc_activation activation, double lr, rc_matrix* d_sources, rc_matrix* d_identity,
                                       rc_stream stream);

/* ---- Networks -------------------------------------------------------------------------------------------------- */

typedef struct rc_network rc_network;

/* The network of a safetensors file that Python's net.save or trainer.save or rc_network_save wrote, on the CPU. */
RC_API rc_status rc_network_load(const char* path, rc_network** network);
/* Replaces the file, whole or not at all; Python's resnetcore.load reads it. Of one moment between two steps. */
RC_API rc_status rc_network_save(const rc_network* network, const char* path);
/* A network with the same arrays that shares nothing with this one, on the same device, or on another. */
RC_API rc_status rc_network_copy(const rc_network* network, rc_network** copy);
RC_API rc_status rc_network_copy_to(const rc_network* network, rc_device device, rc_network** copy);
RC_API void rc_network_free(rc_network* network); /* NULL is fine */

/* −1 and an error's text where network is NULL. */
RC_API int64_t rc_network_inputs(const rc_network* network);
RC_API int64_t rc_network_outputs(const rc_network* network);
RC_API int64_t rc_network_layers(const rc_network* network);
/* Of parameters, x and outputs: float32, also of networks that compute in bfloat16, or float64. */
RC_API rc_dtype rc_network_dtype(const rc_network* network);
RC_API rc_device rc_network_device(const rc_network* network);

/* Matrices of a network on a GPU are there, where they are used in place, or on the CPU, and copied. Of one on the CPU
 * they are there. */

/* Outputs (logits) in inference mode: x is (n, inputs) and out (n, outputs), of the network's dtype; n may be 0. Given
 * a stream, it returns at once where out is on the GPU. */
RC_API rc_status rc_network_predict(const rc_network* network, const rc_matrix* x, rc_matrix* out);
RC_API rc_status rc_network_predict_on(const rc_network* network, const rc_matrix* x, rc_matrix* out, rc_stream stream);

/* A trained array, or a buffer: running statistics and the matrices of fixed skips. */
typedef struct {
    const char* name;      /* "1.weight", "3.skip.2.weight", "2.norm.running_mean"; valid as long as the network */
    int64_t rows, columns; /* a vector is 1×N */
    int32_t dimensions;    /* 1 or 2 */
    int32_t trained;       /* 0 for a buffer */
} rc_parameter;

RC_API int64_t rc_network_parameter_count(const rc_network* network); /* buffers included; −1 as above */
RC_API rc_status rc_network_parameter(const rc_network* network, int64_t index, rc_parameter* parameter);
/* Several of one moment between two steps: values[i] gets, or gives, what is called names[i]. All are set, or none.
 * Those that are got are all on one device. */
RC_API rc_status rc_network_get_parameters(const rc_network* network, int n, const char* const* names,
                                           rc_matrix* values);
RC_API rc_status rc_network_set_parameters(rc_network* network, int n, const char* const* names,
                                           const rc_matrix* values);

/* ---- Training -------------------------------------------------------------------------------------------------- */

typedef int32_t rc_loss;
enum { RC_CROSS_ENTROPY = 0, RC_BINARY_CROSS_ENTROPY = 1, RC_MSE = 2, RC_MAE = 3, RC_HUBER = 4 };

typedef int32_t rc_optimizer;
enum {
    RC_SGD = 0, /* with momentum where that is above 0 */
    RC_ADAM = 1,
    RC_ADAMW = 2
};

/* Made by rc_training_defaults, whose numbers are PyTorch's; then changed. */
typedef struct {
    rc_loss loss;
    rc_optimizer optimizer;
    double label_smoothing;     /* of cross_entropy, in [0, 1) */
    double delta;               /* of huber */
    const double* class_weight; /* of the cross entropies: one a class, copied; NULL for none */
    int64_t classes;            /* how many those are: the outputs, or 2 for binary_cross_entropy; 0 for none */
    double momentum;            /* of SGD, in [0, 1) */
    int32_t nesterov;           /* of SGD */
    int32_t decay_weights_only; /* biases and norms do not decay */
    double weight_decay;
    double beta1, beta2, eps; /* of Adam and AdamW */
    double clip_norm;         /* of all gradients together; 0 for none */
    int64_t accumulate;       /* micro-batches of a step */
    uint64_t seed;            /* of dropout */
} rc_training;

RC_API rc_training rc_training_defaults(rc_loss loss, rc_optimizer optimizer);

typedef struct rc_trainer rc_trainer;

/* Trains the network itself, where it is, which may be freed before the trainer. */
RC_API rc_status rc_trainer_create(rc_network* network, const rc_training* settings, rc_trainer** trainer);
RC_API void rc_trainer_free(rc_trainer* trainer); /* NULL is fine */

/* One update on x, (B, inputs), by learning rate lr; *loss, unless NULL, is the loss of before it. y: int64 labels
 * (B, 1) for cross_entropy, or numbers (B, outputs) of the network's dtype. sample_weight: (B, 1), or NULL. What has to
 * be checked, labels, probabilities and weights, the CPU gets a copy of. As the loss says whether the update is made, a
 * step waits for its work, given a stream too. */
RC_API rc_status rc_trainer_step(rc_trainer* trainer, const rc_matrix* x, const rc_matrix* y,
                                 const rc_matrix* sample_weight, double lr, double* loss);
RC_API rc_status rc_trainer_step_on(rc_trainer* trainer, const rc_matrix* x, const rc_matrix* y,
                                    const rc_matrix* sample_weight, double lr, double* loss, rc_stream stream);
RC_API int64_t rc_trainer_steps(const rc_trainer* trainer); /* updates so far; −1 where trainer is NULL */

#ifdef __cplusplus
}
#endif

#endif /* RESNETCORE_H */
