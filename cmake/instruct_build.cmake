# Compiler settings for the whole tree, and add_layer(): one static library and one test program a folder of src/.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()

find_program(INSTRUCT_CCACHE ccache)
if(INSTRUCT_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${INSTRUCT_CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${INSTRUCT_CCACHE})
endif()
find_program(INSTRUCT_MOLD mold)
if(INSTRUCT_MOLD AND NOT INSTRUCT_SANITIZE)
  add_link_options(-fuse-ld=mold)
endif()

add_compile_options(-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wnon-virtual-dtor -Wold-style-cast
  -Wno-missing-field-initializers)  # designated initialisers leave the rest to the defaults of the struct
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  # False positives of GCC 12 in std::string (bug 105651) and std::optional (bug 80635).
  add_compile_options(-Wno-restrict -Wno-maybe-uninitialized)
endif()
if(INSTRUCT_WERROR)
  add_compile_options(-Werror)
endif()
if(INSTRUCT_FUZZERS)
  add_compile_options(-fsanitize=fuzzer-no-link)  # coverage of every layer steers the fuzzers
endif()
if(INSTRUCT_SANITIZE)
  add_compile_options(-fsanitize=${INSTRUCT_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${INSTRUCT_SANITIZE})
endif()

# Tests compute little themselves, and -O3 takes the compiler twice as long. (-O0 would be faster still, but its copies of
# inline functions replace those of the layers.)
set(INSTRUCT_TEST_OPTIMISATION -O1)

# add_layer(NAME folder SOURCES file... [DEPENDS layer...] [LIBRARIES target...] [TESTS name_test.cc...])
#   DEPENDS are other folders of src/ (public: their headers are part of ours); `base` is always there.
#   LIBRARIES are outside libraries, private to the .cc files of this folder.
#   TESTS are compiled into one GoogleTest program, <folder>_test, registered with CTest case by case.
function(add_layer)
  cmake_parse_arguments(LAYER "" "NAME" "SOURCES;DEPENDS;LIBRARIES;TESTS" ${ARGN})
  set(target instruct_${LAYER_NAME})
  add_library(${target} STATIC ${LAYER_SOURCES})
  add_library(instruct::${LAYER_NAME} ALIAS ${target})
  target_compile_features(${target} PUBLIC cxx_std_20)
  target_include_directories(${target} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src> $<INSTALL_INTERFACE:include/instruct>)
  if(NOT LAYER_NAME STREQUAL base)
    target_link_libraries(${target} PUBLIC instruct_base)
  endif()
  foreach(dependency IN LISTS LAYER_DEPENDS)
    target_link_libraries(${target} PUBLIC instruct_${dependency})
  endforeach()
  target_link_libraries(${target} PRIVATE ${LAYER_LIBRARIES})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${LAYER_NAME})
  set_property(GLOBAL APPEND PROPERTY INSTRUCT_LAYERS ${target})
  if(INSTRUCT_TESTS AND LAYER_TESTS)
    add_executable(${LAYER_NAME}_test ${LAYER_TESTS})
    target_link_libraries(${LAYER_NAME}_test PRIVATE ${target} GTest::gtest_main GTest::gmock ${LAYER_LIBRARIES})
    target_compile_options(${LAYER_NAME}_test PRIVATE ${INSTRUCT_TEST_OPTIMISATION})
    target_compile_definitions(${LAYER_NAME}_test PRIVATE
      INSTRUCT_SOURCE_DIR="${PROJECT_SOURCE_DIR}" INSTRUCT_GOLDENS="${PROJECT_SOURCE_DIR}/tests/goldens")
    gtest_discover_tests(${LAYER_NAME}_test TEST_PREFIX ${LAYER_NAME}. DISCOVERY_MODE PRE_TEST PROPERTIES TIMEOUT 300)
  endif()
endfunction()

# add_fuzzer(name source layer...): a libFuzzer program, only with INSTRUCT_FUZZERS and Clang.
function(add_fuzzer name source)
  if(NOT INSTRUCT_FUZZERS)
    return()
  endif()
  add_executable(${name} ${source})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
  target_compile_options(${name} PRIVATE -fsanitize=fuzzer)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  foreach(layer IN LISTS ARGN)
    target_link_libraries(${name} PRIVATE instruct_${layer})
  endforeach()
endfunction()

include(GoogleTest)
find_package(InstructLibraries REQUIRED)
