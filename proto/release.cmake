# Writes OUT anew when the revision has changed.  Without git, or outside a checkout, the version alone.
execute_process(COMMAND git -C ${SOURCE} describe --always --dirty --abbrev=12 --exclude *
                OUTPUT_VARIABLE revision ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
if(revision)
  set(revision " (${revision})")
endif()
file(CONFIGURE OUTPUT ${OUT} CONTENT
     "#include \"proto/hello.h\"\nconst char tfr_release[] = \"${VERSION}${revision}\";\n" @ONLY)
