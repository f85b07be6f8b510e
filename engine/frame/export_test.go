package frame

// The two ways to mask, and what they say of the top bits.
var (
	MaskHigh     = mask
	MaskPortable = maskPortable
)
