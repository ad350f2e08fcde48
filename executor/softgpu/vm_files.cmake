# The files of the PTX virtual machine, for vm.cmake and for the fuzzers.
set(SOFT_VM_OPS int bit float approx cmp cvt half narrow pair mma mem warp atom move)
set(SOFT_VM_FILES fatbin ptx ptx_lex ptx_decl ptx_opnd load decode dec_mods dec_frame dec_alu dec_move dec_mem
    dec_ctl dec_sync dec_mma addr exec mbarrier calls devrt block workers isa)
list(TRANSFORM SOFT_VM_FILES APPEND .c)
