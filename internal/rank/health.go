package rank

// Health is the measured health of one endpoint. (Skeleton: see the plan in the task.)
type Health struct {
	State State
}
