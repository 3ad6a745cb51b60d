//go:build !faults

package bug

// Here is a place where tests let the program panic, in builds with the tag faults; in others it is
// nothing, and costs nothing.
func Here(string) {}
