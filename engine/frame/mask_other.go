//go:build !amd64

package frame

func maskLong(b []byte, key uint32) (high uint64) { return maskPortable(b, key) }

func highLong([]byte) uint64 { return 1 }
