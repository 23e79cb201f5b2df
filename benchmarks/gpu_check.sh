#!/usr/bin/env bash
# LampBench on one GPU, in under eight minutes: every method with its checks, a resumed run, a memory limit, and the
# engine at the shapes of Qwen2.5-0.5B and Llama-2-7B.
#
#     benchmarks/gpu_check.sh    # in an environment that has LampBench
#     DEVICE=cpu SHAPES=tiny USERS=2 TASKS=lamp3 SLOWER=10 benchmarks/gpu_check.sh    # the same steps on a CPU
#
# A step that fails does not stop the others: the last line names those that failed, and the exit status is 1. Runs, logs
# and the engine's JSON are written below OUT (gpu-check).
set -uo pipefail
cd "$(dirname "$0")/.."
DEVICE=${DEVICE:-cuda}
SHAPES=${SHAPES:-0.5b 7b}
USERS=${USERS:-8}
TASKS=${TASKS:-lamp5,lamp2m}
OUT=${OUT:-gpu-check}
ON=(--users "$USERS" --device "$DEVICE" --dtype bfloat16)
failed=()
mkdir -p "$OUT"

# step NAME SECONDS COMMAND...: run it within so many seconds, and say how it ended.
step() {
    local name=$1 limit=$(($2 * ${SLOWER:-1})) begin=$SECONDS
    shift 2
    timeout --signal INT --kill-after 20 "$limit" "$@" >"$OUT/$name.log" 2>&1
    local status=$?
    echo "$name: status $status after $((SECONDS - begin)) s"
    if [ "$status" != 0 ]; then
        failed+=("$name")
        tail -n 15 "$OUT/$name.log"
    fi
}

step doctor 30 lampbench doctor
step methods 160 lampbench run --method all --task "$TASKS" "${ON[@]}" --out "$OUT/runs"

# As a user does who presses Ctrl-C; a machine that is done before that has nothing to resume.
rm -rf "$OUT/resumed"
timeout --signal INT --preserve-status 15 lampbench run --method oppu,perfit --task lamp7 "${ON[@]}" \
    --out "$OUT/resumed" >"$OUT/interrupted.log" 2>&1
echo "interrupted: status $?"
step resumed 40 lampbench run --method oppu,perfit --task lamp7 "${ON[@]}" --out "$OUT/resumed"

step memory 40 lampbench run --method user-lora --task lamp3 "${ON[@]}" --memory-limit 3 --out "$OUT/limited"

for shape in $SHAPES; do
    # The larger shape has fewer users, so that one user after another does not take minutes.
    if [ "$shape" = 7b ]; then users=4; else users=16; fi
    step "engine-$shape" 95 python benchmarks/engine.py --shape "$shape" --device "$DEVICE" --users "$users" --items 8 \
        --epochs 2 --rounds 1 --rungs solo,stacking,batched --out "$OUT/engine-$shape.json"
done

if [ ${#failed[@]} != 0 ]; then
    echo "failed: ${failed[*]}; the logs are in $OUT"
    exit 1
fi
echo "all steps are done"
