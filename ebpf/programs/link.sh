#!/bin/sh
# The linker of `bpfel-unknown-none`: joins bitcode, hides all but the exported symbols, optimises, makes the object.
# rustc calls it as it would call bpf-linker; POSTERN_LLVM is the folder of the LLVM tools that fit the compiler.
set -eu
llvm=${POSTERN_LLVM:?is set by cargo xtask ebpf}
bitcode= symbols= output=
while [ $# -gt 0 ]; do
    case $1 in
    --export-symbols) symbols=$2; shift ;;
    -o) output=$2; shift ;;
    -L | --cpu) shift ;;
    *.o | *.bc) bitcode="$bitcode $1" ;;
    esac
    shift
done
exported=$(paste -sd, "$symbols")
# shellcheck disable=SC2086 # paths of Cargo's target folder; none holds a space
"$llvm/llvm-link" -S $bitcode -o "$output.linked.ll"
# The kernel takes C's names alone in BTF, and Rust's types have others: `Array<Table, 1>`.
sed -E ':again; s/(name: "[A-Za-z0-9_.]*)[^A-Za-z0-9_."]([^"]*")/\1_\2/; t again' \
    "$output.linked.ll" >"$output.named.ll"
"$llvm/opt" -passes='internalize,default<O2>' -internalize-public-api-list="$exported" -mcpu=v3 \
    "$output.named.ll" -o "$output.optimised.bc"
"$llvm/llc" -O2 -march=bpf -mcpu=v3 -filetype=obj "$output.optimised.bc" -o "$output"
