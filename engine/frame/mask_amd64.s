#include "textflag.h"

// func maskBlocks(p *byte, n int, key uint32) (high uint32)
TEXT ·maskBlocks(SB), NOSPLIT, $0-28
	MOVQ         p+0(FP), DI
	MOVQ         n+8(FP), CX
	MOVL         key+16(FP), AX
	VMOVD        AX, X0
	VPBROADCASTD X0, Y0
	VPXOR        Y1, Y1, Y1
	SUBQ         $128, CX
	JB           rest

four:
	VPXOR   (DI), Y0, Y2
	VPXOR   32(DI), Y0, Y3
	VPXOR   64(DI), Y0, Y4
	VPXOR   96(DI), Y0, Y5
	VMOVDQU Y2, (DI)
	VMOVDQU Y3, 32(DI)
	VMOVDQU Y4, 64(DI)
	VMOVDQU Y5, 96(DI)
	VPOR    Y2, Y3, Y2
	VPOR    Y4, Y5, Y4
	VPOR    Y2, Y1, Y1
	VPOR    Y4, Y1, Y1
	ADDQ    $128, DI
	SUBQ    $128, CX
	JAE     four

rest:
	ADDQ $128, CX
	JZ   done

one:
	VPXOR   (DI), Y0, Y2
	VMOVDQU Y2, (DI)
	VPOR    Y2, Y1, Y1
	ADDQ    $32, DI
	SUBQ    $32, CX
	JNZ     one

done:
	VPMOVMSKB Y1, AX
	MOVL      AX, high+24(FP)
	VZEROUPPER
	RET

// func highBlocks(p *byte, n int) (high uint32)
TEXT ·highBlocks(SB), NOSPLIT, $0-20
	MOVQ  p+0(FP), DI
	MOVQ  n+8(FP), CX
	VPXOR Y1, Y1, Y1
	SUBQ  $128, CX
	JB    rest

four:
	VMOVDQU (DI), Y2
	VMOVDQU 64(DI), Y3
	VPOR    32(DI), Y2, Y2
	VPOR    96(DI), Y3, Y3
	VPOR    Y2, Y1, Y1
	VPOR    Y3, Y1, Y1
	ADDQ    $128, DI
	SUBQ    $128, CX
	JAE     four

rest:
	ADDQ $128, CX
	JZ   done

one:
	VPOR (DI), Y1, Y1
	ADDQ $32, DI
	SUBQ $32, CX
	JNZ  one

done:
	VPMOVMSKB Y1, AX
	MOVL      AX, high+16(FP)
	VZEROUPPER
	RET
