package frame

// The two ways to mask, and what they say of the top bits.
var (
	MaskHigh     = mask
	High         = high
	MaskPortable = maskPortable
)
