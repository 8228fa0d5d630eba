#!/usr/bin/env bash
# What a machine with a GPU can tell: correctness, speed, then the paper's CIFAR-100 row at full scale.
#
#   benchmarks/gpu.sh [--minutes 9] [--out runs/gpu] [--smoke]
#
# Needs PyTorch, torchvision, SciPy, safetensors, fsspec, PyYAML, tqdm, filelock and pytest; neither NNI nor the internet.
# AMC is left out where stable-baselines3 is missing. It ends in time and goes on where an earlier run with the same
# folder has ended: steps that are done are not repeated, and networks are trained from their last checkpoint. --smoke
# tries everything in small on the CPU. NNI_S3D_DATA says where CIFAR-100 is. The results are FOLDER/*.json, *.txt and
# cifar100/table.csv.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1
minutes=9 out=runs/gpu smoke=()
while [ $# -gt 0 ]; do
    case $1 in
        --minutes) minutes=$2; shift 2 ;;
        --out) out=$2; shift 2 ;;
        --smoke) smoke=(--smoke); shift ;;
        *) sed -n '2,4p' "$0" >&2; exit 2 ;;
    esac
done
mkdir -p "$out"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
left() { echo $((minutes * 60 - SECONDS - 5)); }

# step NAME FILE COMMAND...: run a command whose output is the file, unless it has succeeded before.
step() {
    local name=$1 file=$out/$2
    shift 2
    if [ -e "$out/.$name" ]; then echo "$name: done before"; return; fi
    if [ "$(left)" -lt 20 ]; then echo "$name: no time left"; return; fi
    if timeout "$(left)" "$@" >"$file" 2>"$out/$name.log"; then
        touch "$out/.$name"
        rm "$out/$name.log"
        echo "$name: done after $SECONDS s"
    else
        echo "$name: ended with $?, see $out/$name.log"
    fi
}

if [ ${#smoke[@]} -gt 0 ]; then
    export NNI_S3D_TEST_DEVICE=cpu
    step tests tests.txt python -m pytest -q -m gpu tests/growth/test_gpu.py -k "graph_is"
    step curvature curvature.json python benchmarks/curvature.py --json --cases vgg --epochs 0 --repeats 1 --batch 8
    step throughput throughput.json python benchmarks/throughput.py --json --tasks configs/digits/task.yml --batches 4 --repeats 1
else
    step tests tests.txt python -m pytest -q -m gpu tests/growth/test_gpu.py
    step curvature curvature.json python benchmarks/curvature.py --json
    step throughput throughput.json python benchmarks/throughput.py --json --tasks configs/cifar100/task.yml --batches 100
fi
study=(paper/cifar100.yml --scale paper)
[ ${#smoke[@]} -gt 0 ] && study=(paper/digits.yml --scale tiny)
if [ "$(left)" -ge 20 ]; then
    python -m paper.compare "${study[@]}" --out "$out/cifar100" --seconds "$(left)"
fi
