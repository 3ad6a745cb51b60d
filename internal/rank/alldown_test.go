package rank

// allDownStories are for the points 5 and 6.
var allDownStories = []story{
	{
		rule: "5: last_good: those last selected while healthy",
		eps:  []string{"10.0.0.1 healthy 5ms", "10.0.0.2 healthy 9ms", "fd00::1 healthy 5ms tier=1"},
		steps: []step{
			{0, "", "normal 10.0.0.1", "nodata"},
			{1, "10.0.0.2 unhealthy; fd00::1 unhealthy", "normal 10.0.0.1", "nodata"},
			{2, "10.0.0.1 unhealthy", "stale 10.0.0.1", "nodata"},
			{3, "10.0.0.2 healthy", "normal 10.0.0.2", "nodata"},
			{4, "10.0.0.2 unhealthy", "stale 10.0.0.2", "nodata"},
			{5, "10.0.0.2 gone", "stale_all 10.0.0.1", "stale_all fd00::1"},
		},
	},
	{
		rule:  "5: last_good: if there never were any, all",
		eps:   []string{"10.0.0.1 unhealthy", "10.0.0.2 unhealthy", "10.0.0.3 unhealthy gone", "10.0.0.4 unhealthy weight=0", "10.0.0.5 unhealthy down", "10.0.0.6 healthy drain"},
		steps: []step{{0, "", "stale_all 10.0.0.1 10.0.0.2", "nodata"}},
	},
	{
		rule:   "5: none that may be answered: NODATA",
		policy: func(p *Policy) { p.OnAllDown = All },
		eps:    []string{"10.0.0.1 healthy drain", "10.0.0.2 unhealthy gone"},
		steps:  []step{{0, "", "nodata", "nodata"}},
	},
	{
		rule:   "5: all ignores max_answers",
		policy: func(p *Policy) { p.OnAllDown = All },
		eps:    []string{"10.0.0.1 unhealthy 9ms", "10.0.0.2 unhealthy 5ms tier=1", "fd00::1 unhealthy"},
		steps:  []step{{0, "", "stale_all 10.0.0.1 10.0.0.2", "stale_all fd00::1"}},
	},
	{
		rule:   "5: forward",
		policy: func(p *Policy) { p.OnAllDown = Forward },
		eps:    []string{"10.0.0.1 unhealthy"},
		steps:  []step{{0, "", "forward", "forward"}},
	},
	{
		rule:   "5: nodata",
		policy: func(p *Policy) { p.OnAllDown = NoData },
		eps:    []string{"10.0.0.1 unhealthy"},
		steps:  []step{{0, "", "nodata", "nodata"}},
	},
	{
		rule:   "5: servfail, of the family without endpoints too: R84 as glibc reads it",
		policy: func(p *Policy) { p.OnAllDown = ServFail },
		eps:    []string{"10.0.0.1 unhealthy"},
		steps:  []step{{0, "", "servfail", "servfail"}},
	},
	{
		rule:   "5: fewer than min_healthy counts as all down",
		policy: func(p *Policy) { p.MinHealthy, p.OnAllDown = 2, Forward },
		eps:    []string{"10.0.0.1 healthy 5ms", "fd00::1 healthy 9ms", "10.0.0.3 healthy drain"},
		steps: []step{
			{0, "", "normal 10.0.0.1", "normal fd00::1"},
			{1, "fd00::1 unhealthy", "forward", "forward"},
			{2, "10.0.0.3 auto", "normal 10.0.0.1", "nodata"},
		},
	},
	{
		rule:   "5: last_good: never a dead one while a healthy one exists",
		policy: func(p *Policy) { p.MinHealthy = 2 },
		eps:    []string{"10.0.0.1 healthy 5ms", "10.0.0.2 healthy 9ms", "10.0.0.3 healthy 9ms tier=1", "fd00::1 healthy 5ms"},
		steps: []step{
			{0, "", "normal 10.0.0.1", "normal fd00::1"},
			{1, "10.0.0.2 unhealthy; 10.0.0.3 unhealthy; fd00::1 unhealthy", "stale 10.0.0.1", "nodata"},
			{2, "10.0.0.1 unhealthy; 10.0.0.3 healthy", "stale 10.0.0.3", "nodata"},
			{3, "10.0.0.3 unhealthy; fd00::1 healthy", "nodata", "stale fd00::1"},
			{4, "fd00::1 unhealthy", "stale 10.0.0.1", "stale fd00::1"},
		},
	},
	{
		rule:   "5: last_good: together, no family is sent to the backup tier beside the other",
		policy: func(p *Policy) { p.MinHealthy = 3 },
		eps:    []string{"10.0.0.1 healthy 5ms", "10.0.0.2 healthy 5ms", "fd00::1 healthy 9ms tier=1"},
		steps: []step{
			{0, "", "normal 10.0.0.1", "nodata"},
			{1, "10.0.0.2 unhealthy", "stale 10.0.0.1", "nodata"},
		},
	},
	{
		rule:   "5: last_good: together, both families stay in the tier of what is kept",
		policy: func(p *Policy) { p.MinHealthy = 3 },
		eps: []string{"10.0.0.1 healthy 5ms tier=1", "10.0.0.2 healthy 9ms tier=1", "10.0.0.3 healthy 9ms tier=1",
			"fd00::1 unhealthy 5ms"},
		steps: []step{
			{0, "", "normal 10.0.0.1", "nodata"},
			{1, "fd00::1 healthy", "normal 10.0.0.1", "nodata"},
			{2, "10.0.0.2 unhealthy; 10.0.0.3 unhealthy", "stale 10.0.0.1", "nodata"},
		},
	},
	{
		rule:   "5: last_good: apart, each family has its own",
		policy: func(p *Policy) { p.MinHealthy, p.Apart = 3, true },
		eps:    []string{"10.0.0.1 healthy 5ms", "10.0.0.2 healthy 5ms", "fd00::1 healthy 9ms tier=1"},
		steps: []step{
			{0, "", "normal 10.0.0.1", "normal fd00::1"},
			{1, "10.0.0.1 unhealthy", "stale 10.0.0.2", "stale fd00::1"},
		},
	},
	{
		rule:   "5: last_good keeps to max_answers",
		policy: func(p *Policy) { p.MinHealthy = 3 },
		eps:    []string{"10.0.0.1 healthy 5ms", "10.0.0.2 healthy 9ms", "10.0.0.3 healthy 8ms"},
		steps: []step{
			{0, "", "normal 10.0.0.1", ""},
			{1, "10.0.0.1 unhealthy", "stale 10.0.0.3", ""},
		},
	},
	{
		rule: "5: last_good outlives a wait for first verdicts",
		eps:  []string{"10.0.0.1 healthy 5ms", "fd00::1 healthy 9ms", "fd00::2 unhealthy"},
		steps: []step{
			{0, "", "normal 10.0.0.1", "normal fd00::1"},
			{1, "fd00::1 unknown", "normal 10.0.0.1", "wait fd00::1"},
			{2, "fd00::1 unhealthy; 10.0.0.1 unhealthy", "stale 10.0.0.1", "stale fd00::1"},
		},
	},
	{
		rule: "5: last_good: families die one after the other, and each keeps its own",
		eps:  []string{"10.0.0.1 healthy 5ms", "fd00::1 healthy 9ms"},
		steps: []step{
			{0, "", "normal 10.0.0.1", "normal fd00::1"},
			{1, "10.0.0.1 unhealthy", "nodata", "normal fd00::1"},
			{2, "fd00::1 unhealthy", "stale 10.0.0.1", "stale fd00::1"},
		},
	},
	{
		rule:   "5: last_good: a family that another tier has, and that is left out in good times, stays out",
		policy: func(p *Policy) { p.Hold = 0 },
		eps:    []string{"10.0.0.1 unhealthy 5ms", "fd00::1 healthy 9ms tier=1"},
		steps: []step{
			{0, "", "nodata", "normal fd00::1"},
			{1, "10.0.0.1 healthy", "normal 10.0.0.1", "nodata"},
			{2, "fd00::1 unhealthy", "normal 10.0.0.1", "nodata"},
			{3, "10.0.0.1 unhealthy", "stale 10.0.0.1", "nodata"},
		},
	},
	{
		rule:   "5: all under min_healthy: the healthy first",
		policy: func(p *Policy) { p.MinHealthy, p.OnAllDown = 3, All },
		eps:    []string{"10.0.0.1 unhealthy", "10.0.0.2 healthy 9ms", "10.0.0.3 unknown"},
		steps:  []step{{0, "10.0.0.3 unhealthy", "stale_all 10.0.0.2 10.0.0.1 10.0.0.3", ""}},
	},
	{
		rule: "6: before the first verdict a query waits, then all",
		eps:  []string{"10.0.0.1 unknown", "10.0.0.2 unhealthy", "10.0.0.3 unknown drain", "fd00::1 unknown"},
		steps: []step{
			{0, "", "wait 10.0.0.1 10.0.0.2", "wait fd00::1"},
			{0.1, "10.0.0.1 unhealthy", "wait 10.0.0.1 10.0.0.2", "wait fd00::1"},
			{0.2, "fd00::1 unhealthy", "stale_all 10.0.0.1 10.0.0.2", "stale_all fd00::1"},
		},
	},
	{
		rule: "6: a family whose own first verdict is still to come waits",
		eps:  []string{"10.0.0.1 healthy 5ms", "fd00::1 unknown", "fd00::2 unknown tier=1"},
		steps: []step{
			{0, "", "normal 10.0.0.1", "wait fd00::1"},
			{1, "fd00::1 unhealthy", "normal 10.0.0.1", "nodata"},
		},
	},
	{
		rule:   "6: endpoints without a verdict are not down: min_healthy waits for them",
		policy: func(p *Policy) { p.MinHealthy, p.OnAllDown = 2, ServFail },
		eps:    []string{"10.0.0.1 healthy 5ms", "10.0.0.2 unknown"},
		steps:  []step{{0, "", "normal 10.0.0.1", ""}, {1, "10.0.0.2 unhealthy", "servfail", ""}},
	},
	{
		rule: "first verdicts: whose probe ends first does not keep a faster one waiting for hold",
		eps:  []string{"10.0.0.1 unknown", "10.0.0.2 unknown", "10.0.0.3 unknown tier=1"},
		steps: []step{
			{0, "10.0.0.3 healthy 1ms", "normal 10.0.0.3", ""},
			{0.5, "10.0.0.1 healthy 50ms", "normal 10.0.0.1", ""},
			{1, "10.0.0.2 healthy 10ms", "normal 10.0.0.2", ""},
			{2, "10.0.0.1 1ms", "normal 10.0.0.2", ""}, // from now on hold counts
			{11.9, "", "normal 10.0.0.2", ""},
			{12, "", "normal 10.0.0.1", ""},
		},
	},
	{
		rule: "first verdicts: ... but no longer than hold",
		eps:  []string{"10.0.0.1 healthy 50ms", "10.0.0.2 healthy 60ms", "10.0.0.3 unknown"},
		steps: []step{
			{0, "", "normal 10.0.0.1", ""},
			{10, "10.0.0.2 10ms", "normal 10.0.0.1", ""},
			{20, "", "normal 10.0.0.2", ""},
		},
	},
}
