//go:build race

package certs_test

// slowed is how much slower the race detector makes arithmetic that is not in assembler: that of P-384.
const slowed = 40
