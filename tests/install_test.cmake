# Installs the build to an empty prefix, builds examples/embed against it and runs that on a tiny model.
#   cmake -DBUILD=... -DSOURCE=... -DWORK=... -DCXX=... -DGENERATOR=... -P install_test.cmake
function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT code EQUAL 0)
    message(FATAL_ERROR "${ARGN}\nended with ${code}:\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()
function(expect pattern)
  if(NOT output MATCHES "${pattern}")
    message(FATAL_ERROR "expected '${pattern}' in:\n${output}")
  endif()
endfunction()

file(REMOVE_RECURSE ${WORK})
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/prefix)
run(${WORK}/prefix/bin/instruct --version)
expect("^instruct [0-9]+\\.[0-9]+\\.[0-9]+ \\([A-Za-z]+ [0-9.]+\\)")
file(SIZE ${WORK}/prefix/bin/instruct bytes)
if(bytes GREATER 60000000)
  message(FATAL_ERROR "the binary has ${bytes} bytes")
endif()
run(ldd ${WORK}/prefix/bin/instruct)
if(output MATCHES "python|libcurl|libssl|not found")
  message(FATAL_ERROR "the binary is linked with more than it may be:\n${output}")
endif()
foreach(file LICENSE README.md docs/architecture.md)
  if(NOT EXISTS ${WORK}/prefix/share/doc/instruct/${file})
    message(FATAL_ERROR "share/doc/instruct/${file} was not installed")
  endif()
endforeach()

# The prefix is found after it has been moved, and from nothing but CMAKE_PREFIX_PATH.
file(RENAME ${WORK}/prefix ${WORK}/moved)
run(${CMAKE_COMMAND} -S ${SOURCE}/examples/embed -B ${WORK}/build -G ${GENERATOR} -DCMAKE_PREFIX_PATH=${WORK}/moved
  -DCMAKE_CXX_COMPILER=${CXX} -DCMAKE_BUILD_TYPE=Release "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Wpedantic -Werror")
run(${CMAKE_COMMAND} --build ${WORK}/build)

file(WRITE ${WORK}/mail.txt "The invoice is wrong.\n\nThe library does not read my files.\n")
run(${WORK}/build/triage ${SOURCE}/tests/goldens/models/llama-tied ${SOURCE}/examples/embed/triage.iset.yaml
  ${WORK}/mail.txt)
expect("team\\('1st paragraph'\\) = (billing|sales|support)\n  billing +0\\.[0-9]+\n")
expect("team\\('2nd paragraph'\\) = (billing|sales|support)\n")
