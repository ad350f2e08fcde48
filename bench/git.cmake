# Writes OUT anew when the revision has changed: tf-bench names it in every report.
execute_process(COMMAND git -C ${SOURCE} describe --always --dirty --abbrev=12 --exclude *
                OUTPUT_VARIABLE revision ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
if(NOT revision)
  set(revision unknown)
endif()
file(CONFIGURE OUTPUT ${OUT} CONTENT
     "extern const char bench_git[];\nconst char bench_git[] = \"${revision}\";\n" @ONLY)
