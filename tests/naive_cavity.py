"""Slow, obvious twin of the kernels of a cavity: cell by cell, with branches at walls and 2 x 2 equations at membranes."""

import numpy as np


def run(mask, speed, nu, fall, stiff, speakers, sources, members, table, microphones):
    """Fields (steps + 1, rows, columns), displacements (steps + 1, membranes) and traces (steps, microphones) from rest.

    speed (rows, columns) is the squared speed relative to air; table has columns back, damp, spring, bend, stretch, push.
    """
    rows, columns = mask.shape
    fields = [np.zeros(mask.shape), np.zeros(mask.shape)]
    moves = [np.zeros(len(members)), np.zeros(len(members))]
    traces = []
    for source in sources:
        now, old = fields[-1], fields[-2]
        new = np.zeros(mask.shape)
        for i in range(rows):
            for j in range(columns):
                if not mask[i, j]:
                    continue
                flow = 0.0
                for k, m in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                    if 0 <= k < rows and 0 <= m < columns and mask[k, m]:
                        flow += now[k, m] - now[i, j]
                medium = stiff * now[i, j] ** 3 / (1 + now[i, j] ** 2)
                new[i, j] = 2 * fall * now[i, j] - fall**2 * old[i, j] + fall * nu**2 * speed[i, j] * flow - medium
        for (i, j), amount in zip(speakers, source, strict=True):
            new[i, j] += amount
        moved = np.zeros(len(members))
        for m, (i, j) in enumerate(members):
            back, damp, spring, bend, stretch, push = table[m]
            x, before = moves[-1][m], moves[-2][m]
            # unknowns: the field after the step and the displacement after it
            matrix = [[1.0, back], [-push / 2, 1 + damp + bend * x / 3 + stretch * x**2 / 2]]
            right = [
                new[i, j] + back * before,
                2 * x - (1 - damp) * before - spring * x - bend * x * (x + before) / 3
                - stretch * x**2 * before / 2 - push * old[i, j] / 2,
            ]  # fmt: skip
            new[i, j], moved[m] = np.linalg.solve(matrix, right)
        fields.append(new)
        moves.append(moved)
        traces.append([new[i, j] - now[i, j] for i, j in microphones])
    return np.array(fields[1:]), np.array(moves[1:]), np.array(traces)


def energies(mask, speed, nu, fall, members, table, fields, moves):
    """Energy between every two steps, that of the membranes alone, and what was lost over each step; linear medium.

    With ch, sh = cosh, sinh of the loss in one step, g = 2 back/fall and weights 1/speed in the air, g/(speed push) on the
    membranes: (E after) - (E before) = -(sh/2) |u+ - u-|^2/speed - weight damp/2 (x+ - x-)^2, exactly.
    """
    cosh, sinh = (1 / fall + fall) / 2, (1 / fall - fall) / 2
    weight = np.array([2 * one[0] / fall / (speed[i, j] * one[5]) for (i, j), one in zip(members, table, strict=True)])
    totals, stored, losses = [], [], []
    for n in range(len(fields) - 1):
        u, after = fields[n], fields[n + 1]
        energy = np.sum((cosh / 2 * (after - u) ** 2 + (cosh - 1) * after * u)[mask] / speed[mask])
        for a, b in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
            both = mask[a] & mask[b]
            energy += nu**2 / 2 * np.sum(((after[a] - after[b]) * (u[a] - u[b]))[both])
        x, next_x = moves[n], moves[n + 1]
        _, _, spring, bend, stretch, _ = table.T
        held = (next_x - x) ** 2 / 2 + spring * x * next_x / 2 + bend * x * next_x * (x + next_x) / 6
        held = np.sum(weight * (held + stretch * x**2 * next_x**2 / 4))
        totals.append(energy + held)
        stored.append(held)
    for n in range(1, len(fields) - 1):
        heat = sinh / 2 * np.sum(((fields[n + 1] - fields[n - 1]) ** 2)[mask] / speed[mask])
        losses.append(heat + np.sum(weight * table[:, 1] / 2 * (moves[n + 1] - moves[n - 1]) ** 2))
    return np.array(totals), np.array(stored), np.array(losses)
