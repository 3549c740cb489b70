# What `cmake --install` puts where. Component `program`: the binary, its documentation and licence. Component
# `development`: libraries, headers and the package that find_package(instruct) reads.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

get_property(layers GLOBAL PROPERTY INSTRUCT_LAYERS)
add_library(instruct_all INTERFACE)
target_link_libraries(instruct_all INTERFACE ${layers})
set_target_properties(instruct_all PROPERTIES EXPORT_NAME instruct)

install(TARGETS instruct_program RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT program)
install(FILES LICENSE README.md DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT program)
install(DIRECTORY docs examples DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT program)

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/instruct)
install(TARGETS instruct_all ${layers} EXPORT instructTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development)
install(EXPORT instructTargets NAMESPACE instruct:: DESTINATION ${package} COMPONENT development)
# Headers of tests and of one backend's inside stay behind; all others include nothing of other projects but fmt.
install(DIRECTORY src/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/instruct COMPONENT development
  FILES_MATCHING PATTERN "*.h" PATTERN "cli" EXCLUDE PATTERN "kernels/cpu" EXCLUDE PATTERN "test_support.h" EXCLUDE
  PATTERN "gradient_check.h" EXCLUDE)
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/instructConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES cmake/instructConfig.cmake cmake/FindInstructLibraries.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/instructConfigVersion.cmake DESTINATION ${package} COMPONENT development)
