/* Runs a saved network on rows of numbers from standard input, and prints a row of outputs for each: predict NETWORK */
#include <stdio.h>
#include <stdlib.h>

#include "resnetcore.h"

static int fail(const char* message) {
    fprintf(stderr, "%s\n", message);
    return 1;
}

int main(int argc, char** argv) {
    rc_network* network;
    rc_matrix x = {NULL, 1, 0, 0, RC_FLOAT32, RC_CPU}, out = x;
    int64_t i, read = 0;
    int failed = 0;

    if (argc != 2) return fail("usage: predict NETWORK");
    if (rc_network_load(argv[1], &network) != RC_OK) return fail(rc_last_error());
    x.columns = x.stride = rc_network_inputs(network);
    out.columns = out.stride = rc_network_outputs(network);
    x.data = malloc((size_t)x.columns * sizeof(float));
    out.data = malloc((size_t)out.columns * sizeof(float));
    if (!x.data || !out.data) failed = fail("out of memory");

    while (!failed && scanf("%f", (float*)x.data + read) == 1) {
        if (++read < x.columns) continue;
        read = 0;
        if (rc_network_predict(network, &x, &out) != RC_OK) {
            failed = fail(rc_last_error());
            break;
        }
        for (i = 0; i < out.columns; ++i) printf("%.9g%c", ((float*)out.data)[i], i + 1 < out.columns ? ' ' : '\n');
    }
    if (!failed && (read > 0 || !feof(stdin))) failed = fail("a row is incomplete, or holds what is not a number");
    free(x.data);
    free(out.data);
    rc_network_free(network);
    return failed;
}
