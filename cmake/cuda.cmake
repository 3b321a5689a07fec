# Whether the CUDA module is built, and by which compiler: sets RESNETCORE_HAS_CUDA, and enables the language.
#
# In this order: a compiler that is named (CUDACXX, CMAKE_CUDA_COMPILER), the one whose wheels are in the Python
# environment that builds (nvidia-cuda-nvcc), one on the PATH, one in /usr/local/cuda. No GPU is looked for.
set(RESNETCORE_CUDA "$ENV{RESNETCORE_CUDA}" CACHE STRING "AUTO: the CUDA module is built where there is a compiler; ON; OFF")
set_property(CACHE RESNETCORE_CUDA PROPERTY STRINGS AUTO ON OFF)
if(RESNETCORE_CUDA STREQUAL "")
    set(RESNETCORE_CUDA AUTO)
endif()
string(TOUPPER "${RESNETCORE_CUDA}" RESNETCORE_CUDA)
if(NOT RESNETCORE_CUDA MATCHES "^(AUTO|ON|OFF)$")
    message(FATAL_ERROR "RESNETCORE_CUDA must be AUTO, ON or OFF, got ${RESNETCORE_CUDA}")
endif()
set(RESNETCORE_HAS_CUDA OFF)
set(RESNETCORE_CUDA_OLDEST 12.1)  # knows sm_90a, and kernels whose parameters are more than 4 KiB

# Empty where there is none.
function(resnetcore_find_nvcc result)
    set(${result} "" PARENT_SCOPE)
    foreach(named "${CMAKE_CUDA_COMPILER}" "$ENV{CUDACXX}")
        if(named)
            find_program(found "${named}" NO_CACHE)
            if(found)
                set(${result} "${found}" PARENT_SCOPE)
            endif()
            return()
        endif()
    endforeach()
    find_package(Python COMPONENTS Interpreter QUIET)
    if(Python_EXECUTABLE)
        # "nvidia" is a namespace that several folders share, an isolated build's among them.
        execute_process(
            COMMAND "${Python_EXECUTABLE}" -c "import importlib.util, pathlib
spec = importlib.util.find_spec('nvidia')
found = [p for f in (spec.submodule_search_locations if spec else ()) for p in pathlib.Path(f).glob('cu*/bin/nvcc')]
print(max(found, default=''), end='')"
            OUTPUT_VARIABLE wheel ERROR_QUIET)
        if(wheel)
            set(${result} "${wheel}" PARENT_SCOPE)
            return()
        endif()
    endif()
    find_program(installed nvcc PATHS /usr/local/cuda/bin NO_CACHE)
    if(installed)
        set(${result} "${installed}" PARENT_SCOPE)
    endif()
endfunction()

# Why not: `ON` stops there, `AUTO` goes on without.
function(resnetcore_without_cuda reason)
    if(RESNETCORE_CUDA STREQUAL "ON")
        message(FATAL_ERROR "RESNETCORE_CUDA=ON: ${reason}. `RESNETCORE_CUDA=ON pip install .` fetches a compiler where "
            "builds are isolated; otherwise run `pip install nvidia-cuda-nvcc nvidia-cuda-cccl`, or name a toolkit's nvcc "
            "in CUDACXX; RESNETCORE_CUDA=OFF builds for the CPU alone")
    endif()
    message(STATUS "CUDA: not built (RESNETCORE_CUDA=AUTO): ${reason}")
endfunction()

if(RESNETCORE_CUDA STREQUAL "OFF")
    message(STATUS "CUDA: not built (RESNETCORE_CUDA=OFF)")
    return()
endif()

# An isolated build's compiler has another path every time: what CMake remembers of one that is gone is of no use.
if(CMAKE_CUDA_COMPILER AND NOT EXISTS "${CMAKE_CUDA_COMPILER}")
    unset(CMAKE_CUDA_COMPILER CACHE)
    file(REMOVE "${CMAKE_BINARY_DIR}/CMakeFiles/${CMAKE_VERSION}/CMakeCUDACompiler.cmake")
endif()

resnetcore_find_nvcc(RESNETCORE_NVCC)
if(NOT RESNETCORE_NVCC)
    resnetcore_without_cuda("there is no CUDA compiler (nvcc, or what CUDACXX names)")
    return()
endif()
execute_process(COMMAND "${RESNETCORE_NVCC}" --version OUTPUT_VARIABLE version ERROR_QUIET)
string(REGEX MATCH "V([0-9]+\\.[0-9]+)" version "${version}")
set(version "${CMAKE_MATCH_1}")
if(NOT version OR version VERSION_LESS RESNETCORE_CUDA_OLDEST)
    resnetcore_without_cuda("${RESNETCORE_NVCC} is version '${version}', ${RESNETCORE_CUDA_OLDEST} or later is needed")
    return()
endif()

# Wheels have their libraries in lib, and nvcc 13.0 looks for them in lib64. CMake asks it for the folder now, and links
# by itself later.
get_filename_component(root "${RESNETCORE_NVCC}" REALPATH)
get_filename_component(root "${root}/../.." ABSOLUTE)
if(EXISTS "${root}/lib/libcudart_static.a")
    set(ENV{NVCC_APPEND_FLAGS} "$ENV{NVCC_APPEND_FLAGS} -L${root}/lib")
endif()
set(ENV{CUDACXX} "${RESNETCORE_NVCC}")
set(CMAKE_CUDA_ARCHITECTURES OFF)  # csrc/CMakeLists.txt names them all
if(NOT CMAKE_CUDA_HOST_COMPILER)
    set(CMAKE_CUDA_HOST_COMPILER "${CMAKE_CXX_COMPILER}")
endif()
if(RESNETCORE_CUDA STREQUAL "AUTO")
    include(CheckLanguage)
    check_language(CUDA)
    if(NOT CMAKE_CUDA_COMPILER)
        resnetcore_without_cuda("${RESNETCORE_NVCC} does not work with ${CMAKE_CXX_COMPILER}")
        return()
    endif()
endif()
enable_language(CUDA)
message(STATUS "CUDA: built by ${RESNETCORE_NVCC}, ${version} (RESNETCORE_CUDA=${RESNETCORE_CUDA})")
set(RESNETCORE_HAS_CUDA ON)
