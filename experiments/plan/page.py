"""A plan in the terminal."""

GIB = 2**30


def print_plan(options, found):
    """Every program's memory, collectives and time; what the stages take."""
    sizes = ", ".join(f"{axis} {size}" for axis, size in found["mesh"].items())
    print(
        f"\n{options.config} on {options.topology}: {found['devices']} devices, {sizes}"
    )
    print(assumptions(found))
    for record in found["programs"]:
        print()
        for line in lines_of(record):
            print(line)
    print("\n" + stages_table(found["programs"]))
    print(label_line(found["labels"]))


def assumptions(found):
    assumed = found["assumed"]
    versions = ", ".join(f"{name} {text}" for name, text in found["versions"].items())
    return (
        f"compiled with {versions}; assumed: prompts of {assumed['prompt_len']} tokens, "
        f"responses of {assumed['response_len']} in {assumed['num_steps']} steps, "
        f"{assumed['utilisation']:.0%} of the peak FLOP/s, {assumed['bandwidth']:.0%} of "
        "the bandwidth in decoding"
    )


def lines_of(record):
    """What is said of a program."""
    title = f"{record['stage']}: {record['program']}"
    verdict = "fits" if record["fits"] else "DOES NOT FIT"
    yield (
        f"{title:44} {verdict}: {gib(record['needed'])} of "
        f"{gib(record['chip_memory'])} per chip   (compiled in {record['seconds']:.0f} s)"
    )
    parts = {f"{what}": size for what, size in record["filled_by"].items()}
    yield "  arguments    " + sizes_of(parts)
    if "memory" in record:
        memory = record["memory"]
        names = ("temporaries", "results", "code")
        yield "  program      " + sizes_of({name: memory[name] for name in names})
        if record["caches"]:
            yield "  its caches   " + sizes_of(record["caches"])
    else:
        needs = record["needs"]
        said = needs.get("said")
        for name in ("used", "temporaries"):
            if name in needs:
                said = f"{name} {gib(needs[name])} of {gib(needs['of'])}"
        yield f"  the compiler says: {said}"
    if record["beside"]:
        yield "  lies beside  " + sizes_of(record["beside"])
    a_round = "a token" if record["caches"] else "a round"
    for title, name in (("a call", "collectives"), (a_round, "in_loop")):
        if record.get(name):
            sent = ", ".join(
                f"{total['count']} {kind} ({gib(total['bytes'])})"
                for kind, total in record[name].items()
            )
            yield f"  sent {title:8}" + sent
    if record.get("largest"):
        named = ", ".join(
            f"{name or 'optimizer'} {kind} {gib(size)}{f' {a_round}' if looped else ''}"
            for kind, name, looped, size in record["largest"][:3]
        )
        yield f"  most of it   {named}"
    yield (
        f"  time         {record['call_seconds']:.3g} s a call "
        f"(computing {record['computing_seconds']:.3g}, network "
        f"{record['network_seconds']:.3g}), {record['flops']:.3g} FLOPs, "
        f"{record['tokens']:,.0f} tokens; {record['calls']:,.0f} calls"
    )


def stages_table(records):
    """Tokens and hours of every stage."""
    rows, totals = [f"{'stage':24} {'tokens':>16} {'FLOPs':>10} {'hours':>8}  fits"], {}
    for record in records:
        total = totals.setdefault(record["stage"], [0.0, 0.0, 0.0, True])
        total[0] += record["stage_tokens"]
        total[1] += record["flops"] * record["calls"]
        total[2] += record["hours"]
        total[3] &= record["fits"]
    for stage, (tokens, flops, hours, fits) in totals.items():
        rows.append(
            f"{stage:24} {tokens:>16,.0f} {flops:>10.2g} {hours:>8.2f}  "
            f"{'yes' if fits else 'NO'}"
        )
    return "\n".join(rows)


def label_line(labels):
    """The budget of the paper's labels."""
    saved = 1 - labels["flops"] / labels["flops_without_sharing"]
    return (
        f"labels of the paper: {labels['prefixes']:,} prefixes x "
        f"{labels['completions']} completions = {labels['tokens']:.3g} tokens, "
        f"{labels['flops']:.3g} FLOPs ({saved:.0%} saved by reading prefixes once), "
        f"{labels['hours']:.1f} hours on these devices"
    )


def print_ranking(options, found):
    """Meshes that fit, the fastest first, and why the others do not."""
    print(f"\n{options.config} on {options.topology}: {found['devices']} devices")
    print(assumptions(found))
    for number, each in enumerate(found["ranked"], start=1):
        sizes = ",".join(f"{axis}={size}" for axis, size in each["mesh"].items())
        state = each["state"]
        hours = f"{each['hours']:.1f} hours" if each["hours"] is not None else "-"
        print(
            f"{number:3}  --mesh={sizes:32} accumulate={each['accumulate']:<3} {hours:>12}"
            f"  {gib(each['needed'])} at most  {state}"
        )
    for reason, count in found["left_out"].items():
        print(f"left out: {count} {reason}")


def gib(size):
    """Bytes, to read."""
    return f"{size / GIB:.2f} GiB" if size >= 0.1 * GIB else f"{size / 2**20:.1f} MiB"


def sizes_of(parts):
    """{what: bytes} in one line, the largest first; what is next to nothing left out."""
    ordered = sorted(parts.items(), key=lambda item: -item[1])
    shown = [f"{what} {gib(size)}" for what, size in ordered if size >= 2**20]
    return ", ".join(shown) or "less than 1 MiB"
