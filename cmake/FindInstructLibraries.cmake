# The outside libraries that the layers are linked with, found the same way here and by programs that use an installed
# instruct: instructConfig.cmake lies beside a copy of this file. Header-only libraries (nlohmann-json, CLI11) are not
# here, because a program that uses instruct does not need them.
#
# InstructLibraries::<name> stands for a library without a usable CMake package in Debian 12. oneDNN has one, but it asks
# for OpenCL, which only GPU builds of oneDNN's headers need.

find_package(Threads QUIET)
if(CMAKE_CXX_COMPILER_ID STREQUAL Clang AND NOT DEFINED OpenMP_CXX_FLAGS)
  # Debian's oneDNN runs on GNU's OpenMP: with Clang's own beside it a process has two.
  set(OpenMP_CXX_FLAGS -fopenmp=libgomp)
  set(OpenMP_CXX_LIB_NAMES gomp)
  find_library(OpenMP_gomp_LIBRARY libgomp.so.1)
endif()
find_package(OpenMP QUIET COMPONENTS CXX)
find_package(OpenSSL QUIET COMPONENTS Crypto)
find_package(fmt QUIET)
find_package(yaml-cpp QUIET)

function(instruct_find_library name header library)
  find_path(INSTRUCT_${name}_INCLUDE ${header})
  find_library(INSTRUCT_${name}_LIBRARY ${library})
  mark_as_advanced(INSTRUCT_${name}_INCLUDE INSTRUCT_${name}_LIBRARY)
  if(INSTRUCT_${name}_INCLUDE AND INSTRUCT_${name}_LIBRARY AND NOT TARGET InstructLibraries::${name})
    add_library(InstructLibraries::${name} UNKNOWN IMPORTED)
    set_target_properties(InstructLibraries::${name} PROPERTIES
      IMPORTED_LOCATION "${INSTRUCT_${name}_LIBRARY}" INTERFACE_INCLUDE_DIRECTORIES "${INSTRUCT_${name}_INCLUDE}")
  endif()
endfunction()
instruct_find_library(dnnl dnnl.hpp dnnl)
instruct_find_library(hwy hwy/highway.h hwy)
instruct_find_library(pcre2 pcre2.h pcre2-8)
instruct_find_library(utf8proc utf8proc.h utf8proc)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(InstructLibraries
  REQUIRED_VARS INSTRUCT_dnnl_LIBRARY INSTRUCT_dnnl_INCLUDE INSTRUCT_hwy_LIBRARY INSTRUCT_hwy_INCLUDE
    INSTRUCT_pcre2_LIBRARY INSTRUCT_pcre2_INCLUDE INSTRUCT_utf8proc_LIBRARY INSTRUCT_utf8proc_INCLUDE
    Threads_FOUND OpenMP_CXX_FOUND OPENSSL_FOUND fmt_FOUND yaml-cpp_FOUND
  REASON_FAILURE_MESSAGE "(on Debian: scripts/install_deps.sh build)")
