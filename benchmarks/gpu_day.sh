#!/usr/bin/env bash
# Everything that needs a GPU, in pieces of under ten minutes, without a network: builds with the machine's own nvcc, runs
# the GPU's tests, compute-sanitizer and the benchmarks, and writes one file of results (benchmarks/README.md).
#
#   benchmarks/gpu_day.sh [--list] [--minutes N] [PIECE...]
#
# Done pieces are not done again, failed ones are: the folder build/gpu_day/COMMIT, or $RESNETCORE_GPU_DAY, remembers.
# --minutes: no piece begins that might not end within N minutes. Wheels that the machine lacks lie in wheels/, or in
# $RESNETCORE_WHEELS. Ends with 0 when all pieces asked for have passed, 1 when one failed, 2 when
# there was no time for some.
set -uo pipefail
cd "$(dirname "$0")/.."
commit="${RESNETCORE_COMMIT:-$(git rev-parse --short HEAD 2> /dev/null || echo unknown)}"
work="$(realpath -m "${RESNETCORE_GPU_DAY:-build/gpu_day/$commit}")"
wheels="${RESNETCORE_WHEELS:-wheels}"
python="${PYTHON:-python3}"
results="${RESNETCORE_RESULTS:-benchmarks/results}"
export PYTHONPATH="$work/site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 RESNETCORE_COMMIT="$commit"
# The wheels' programs (ninja's package looks for its own elsewhere), and CUDA's where the PATH lacks them.
export PATH="$PATH:$work/site/bin:/usr/local/cuda/bin"

# A name, the seconds it may take, and the command.
pieces=(
    "build|590|build"
    "gates|300|RESNETCORE_CUDA=ON $python -m pytest -q tests/test_cuda_build.py tests/test_cuda_device.py"
    "tests|590|$python -m pytest -q -m gpu --durations=10"
    "hopper-smoke|60|RESNETCORE_CUDA_PATH=hopper $python -m benchmarks.small_shapes cuda bfloat16"
    # That its kernels run: a product that is not for them goes the simple way without a word.
    "hopper-kernels|200|RESNETCORE_CUDA_PATH=hopper ncu --kernel-name regex:wide_ --launch-count 60 --metrics gpu__time_duration.sum $python -m benchmarks.small_shapes cuda bfloat16 | tee $work/hopper-kernels.txt && grep -q wide_sum_kernel $work/hopper-kernels.txt && grep -q wide_weights_kernel $work/hopper-kernels.txt"
    "hopper-tests|590|RESNETCORE_CUDA_PATH=hopper $python -m pytest -q -m gpu -k bfloat16 --durations=10"
    "hopper_narrow-smoke|60|RESNETCORE_CUDA_PATH=hopper_narrow $python -m benchmarks.small_shapes cuda bfloat16"
    "hopper_narrow-kernels|200|RESNETCORE_CUDA_PATH=hopper_narrow ncu --kernel-name regex:chain_ --launch-count 20 --metrics gpu__time_duration.sum $python -m benchmarks.small_shapes cuda bfloat16 | tee $work/hopper_narrow-kernels.txt && grep -q chain_kernel $work/hopper_narrow-kernels.txt"
    "hopper_narrow-tests|590|RESNETCORE_CUDA_PATH=hopper_narrow $python -m pytest -q -m gpu -k bfloat16 --durations=10"
)
for check in memcheck racecheck initcheck synccheck; do
    for dtype in float32 bfloat16 float64; do
        pieces+=("$check-$dtype|590|compute-sanitizer --tool $check --target-processes all --error-exitcode 9 $python -m benchmarks.small_shapes cuda $dtype")
    done
done
for path in hopper hopper_narrow; do
    for check in memcheck racecheck; do
        pieces+=("$path-$check|590|RESNETCORE_CUDA_PATH=$path compute-sanitizer --tool $check --target-processes all --error-exitcode 9 $python -m benchmarks.small_shapes cuda bfloat16")
    done
done
for options in "" "--variant norm" "--variant dense" "--mode infer" "--precision bfloat16" "--mode infer --precision bfloat16"; do
    name=benchmark
    for word in $options; do [[ "$word" == --* ]] || name+="-$word"; done
    pieces+=("$name|590|$python -m benchmarks --device cuda --seconds 10 --out $work/benchmarks $options")
done
# Beside `benchmark-bfloat16`, whose rivals and shapes they are.
for path in hopper hopper_narrow; do
    pieces+=("$path-benchmark|590|RESNETCORE_CUDA_PATH=$path $python -m benchmarks --device cuda --seconds 10 --out $work/benchmarks/$path --precision bfloat16")
done
pieces+=("hopper_narrow-benchmark-infer|590|RESNETCORE_CUDA_PATH=hopper_narrow $python -m benchmarks --device cuda --seconds 10 --out $work/benchmarks/hopper_narrow --mode infer --precision bfloat16")

build() {
    mkdir -p "$work/site"
    if compgen -G "$wheels/*.whl" > /dev/null; then
        "$python" -m pip install -q --no-index --no-deps --upgrade --target "$work/site" "$wheels"/*.whl || return
    fi
    CMAKE_BUILD_PARALLEL_LEVEL="$(nproc)" RESNETCORE_CUDA=ON "$python" -m pip install --no-index --no-deps --no-build-isolation --upgrade --target "$work/site" . &&
        "$python" -c "import resnetcore as rc; rc.show_config(); from resnetcore import _core; print(_core.check_device('cuda'))"
}

# Its output goes to NAME.log, and its state to NAME.state: passed or failed, seconds, and the output's last line.
run_piece() {
    local name="$1" limit="$2" command="$3" began=$SECONDS state=passed
    printf '== %s\n' "$name"
    if [ "$command" = build ]; then
        export -f build
        export work wheels python
    fi
    timeout -k 15 "$limit" bash -c "$command" > "$work/$name.log" 2>&1 || state="failed"
    tail -n 3 "$work/$name.log"
    printf '%s\n%s\n%s\n' "$state" "$((SECONDS - began))" "$(grep -v '^$' "$work/$name.log" | tail -n 1)" > "$work/$name.state"
    printf '== %s: %s, %d s\n' "$name" "$state" "$((SECONDS - began))"
}

minutes=0 chosen=()
while [ $# -gt 0 ]; do
    case "$1" in
        --list) printf '%s\n' "${pieces[@]%%|*}" && exit ;;
        --minutes) minutes="$2" && shift ;;
        -*) sed -n '2,12s/^# \{0,1\}//p' "$0" && exit 64 ;;
        *) chosen+=("$1") ;;
    esac
    shift
done

mkdir -p "$work"
status=0
for piece in "${pieces[@]}"; do
    IFS='|' read -r name limit command <<< "$piece"
    if [ "${#chosen[@]}" -gt 0 ] && [[ ! " ${chosen[*]} " == *" $name "* ]]; then continue; fi
    if [ "$(head -n 1 "$work/$name.state" 2> /dev/null)" != passed ]; then
        if [ "$minutes" -gt 0 ] && [ "$((SECONDS + limit))" -gt "$((60 * minutes + 30))" ]; then
            [ "$status" -eq 0 ] && status=2
            continue
        fi
        run_piece "$name" "$limit" "$command"
    fi
    if [ "$(head -n 1 "$work/$name.state")" != passed ]; then
        status=1
        [ "$name" = build ] && break
    fi
done
"$python" -m benchmarks.gpu_day "$work" "$results" "$(printf '%s ' "${pieces[@]%%|*}")" || status=1
exit "$status"
