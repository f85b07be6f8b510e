package ticket

// CMAC is AES-CMAC under key, for the vectors of RFC 4493.
func CMAC(key, msg []byte) ([16]byte, error) {
	m, err := newCMAC(key)
	if err != nil {
		return [16]byte{}, err
	}
	var x [16]byte
	m.sum(&x, msg)
	return x, nil
}
