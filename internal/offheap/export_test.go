package offheap

// Warm is how many buffers are kept with their pages, and how many bytes those are.
func (b *Buffers) Warm() (n, bytes int) { return len(b.warm), b.resident }
