# One function for every target of ours: language level, warnings, visibility, sanitizers.
function(tfr_target name)
  target_compile_features(${name} PRIVATE c_std_17)
  set_target_properties(${name} PROPERTIES C_EXTENSIONS ON C_VISIBILITY_PRESET hidden
                        POSITION_INDEPENDENT_CODE ON)
  target_compile_definitions(${name} PRIVATE _GNU_SOURCE)
  target_compile_options(${name} PRIVATE -Wall -Wextra -Wshadow -Wstrict-prototypes)
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
  if(TFR_WERROR)
    target_compile_options(${name} PRIVATE -Werror)
  endif()
  if(TFR_SANITIZE)
    target_compile_options(${name} PRIVATE -fsanitize=${TFR_SANITIZE} -fno-omit-frame-pointer
                           -fno-sanitize-recover=all)
    target_link_options(${name} PRIVATE -fsanitize=${TFR_SANITIZE})
  endif()
endfunction()
