// Names in files that are compiled once per instruction set, with SUBLLM_ISA its name.
#pragma once

#define SUBLLM_JOIN_(a, b) a##_##b
#define SUBLLM_JOIN(a, b) SUBLLM_JOIN_(a, b)
#define SUBLLM_FOR_ISA(name) SUBLLM_JOIN(name, SUBLLM_ISA)

#define SUBLLM_TEXT_OF(name) #name
#define SUBLLM_TEXT(name) SUBLLM_TEXT_OF(name)
