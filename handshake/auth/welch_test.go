package auth_test

import "math"

// welch is the absolute value of Welch's t: how many standard errors the two means are apart.
func welch(a, b []float64) float64 {
	ma, va := moments(a)
	mb, vb := moments(b)
	se := math.Sqrt(va/float64(len(a)) + vb/float64(len(b)))
	if se == 0 {
		return 0
	}
	return math.Abs(ma-mb) / se
}

func moments(s []float64) (mean, variance float64) {
	for _, x := range s {
		mean += x
	}
	mean /= float64(len(s))
	for _, x := range s {
		variance += (x - mean) * (x - mean)
	}
	return mean, variance / float64(len(s)-1)
}
