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
 * Memory is the caller's and on the CPU. Where devices come, a pointer says which one it is of, as CUDA's unified
 * addresses do, and a stream belongs to the calling thread: no type or function here needs to change for it.
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
    RC_VALUE_ERROR = 1,         /* a number out of its range, an unknown name, a null pointer, overlapping memory */
    RC_SHAPE_ERROR = 2,         /* matrices or layers that do not fit together, strides that are not taken */
    RC_DTYPE_ERROR = 3,         /* a dtype that is not taken here */
    RC_DEVICE_ERROR = 4,        /* a device that is not there */
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
 */
typedef struct {
    void* data;
    int64_t rows, columns, stride; /* stride in elements */
    rc_dtype dtype;
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
 * What is written overlaps nothing else. */
RC_API rc_status rc_residual_forward(int n, const rc_matrix* sources, const rc_matrix* weights, const rc_matrix* bias,
                                     int n_identity, const rc_matrix* identity, rc_activation activation,
                                     rc_matrix* out);

/* From grad = ∂E/∂a, (B, N), and the a that rc_residual_forward gave: with δ = grad ⊙ g′, d_sources[s] = δ·W_sᵀ,
 * d_weights[s] = A_sᵀ·δ, d_bias = Σ_rows δ, d_identity[i] = δ, in the shapes of what they are gradients of. Any of the
 * four may be NULL where it is not wanted. In bfloat16, d_weights and d_bias may be float32, unrounded. */
RC_API rc_status rc_residual_backward(const rc_matrix* grad, const rc_matrix* a, int n, const rc_matrix* sources,
                                      const rc_matrix* weights, const rc_matrix* bias, int n_identity,
                                      const rc_matrix* identity, rc_activation activation, rc_matrix* d_sources,
                                      rc_matrix* d_weights, rc_matrix* d_bias, rc_matrix* d_identity);

/* The same, and W_s ← W_s − lr·A_sᵀ·δ and b ← b − lr·Σ_rows δ in place, once all gradients are taken; lr > 0. */
RC_API rc_status rc_residual_update(const rc_matrix* grad, const rc_matrix* a, int n, const rc_matrix* sources,
                                    rc_matrix* weights, rc_matrix* bias, int n_identity, const rc_matrix* identity,
                                    rc_activation activation, double lr, rc_matrix* d_sources, rc_matrix* d_identity);

/* ---- Networks -------------------------------------------------------------------------------------------------- */

typedef struct rc_network rc_network;

/* The network of a safetensors file that Python's net.save or trainer.save or rc_network_save wrote. */
RC_API rc_status rc_network_load(const char* path, rc_network** network);
/* Replaces the file, whole or not at all; Python's resnetcore.load reads it. Of one moment between two steps. */
RC_API rc_status rc_network_save(const rc_network* network, const char* path);
/* A network with the same arrays that shares nothing with this one. */
RC_API rc_status rc_network_copy(const rc_network* network, rc_network** copy);
RC_API void rc_network_free(rc_network* network); /* NULL is fine */

/* −1 and an error's text where network is NULL. */
RC_API int64_t rc_network_inputs(const rc_network* network);
RC_API int64_t rc_network_outputs(const rc_network* network);
RC_API int64_t rc_network_layers(const rc_network* network);
/* Of parameters, x and outputs: float32, also of networks that compute in bfloat16, or float64. */
RC_API rc_dtype rc_network_dtype(const rc_network* network);

/* Outputs (logits) in inference mode: x is (n, inputs) and out (n, outputs), of the network's dtype; n may be 0. */
RC_API rc_status rc_network_predict(const rc_network* network, const rc_matrix* x, rc_matrix* out);

/* A trained array, or a buffer: running statistics and the matrices of fixed skips. */
typedef struct {
    const char* name;      /* "1.weight", "3.skip.2.weight", "2.norm.running_mean"; valid as long as the network */
    int64_t rows, columns; /* a vector is 1×N */
    int32_t dimensions;    /* 1 or 2 */
    int32_t trained;       /* 0 for a buffer */
} rc_parameter;

RC_API int64_t rc_network_parameter_count(const rc_network* network); /* buffers included; −1 as above */
RC_API rc_status rc_network_parameter(const rc_network* network, int64_t index, rc_parameter* parameter);
/* Several of one moment between two steps: values[i] gets, or gives, what is called names[i]. All are set, or none. */
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

/* Trains the network itself, which may be freed before the trainer. */
RC_API rc_status rc_trainer_create(rc_network* network, const rc_training* settings, rc_trainer** trainer);
RC_API void rc_trainer_free(rc_trainer* trainer); /* NULL is fine */

/* One update on x, (B, inputs), by learning rate lr; *loss, unless NULL, is the loss of before it. y: int64 labels
 * (B, 1) for cross_entropy, or numbers (B, outputs) of the network's dtype. sample_weight: (B, 1), or NULL. */
RC_API rc_status rc_trainer_step(rc_trainer* trainer, const rc_matrix* x, const rc_matrix* y,
                                 const rc_matrix* sample_weight, double lr, double* loss);
RC_API int64_t rc_trainer_steps(const rc_trainer* trainer); /* updates so far; −1 where trainer is NULL */

#ifdef __cplusplus
}
#endif

#endif /* RESNETCORE_H */
